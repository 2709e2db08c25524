"""Every published family: a file in its own layout, with random weights, gives what an independent model of it gives.

Depths are reduced to two blocks; widths, heads, patches and key names are the published ones.
"""

import argparse
import collections
import dataclasses
import pickle
import re
from pathlib import Path

import inputs
import numpy as np
import pytest
import timm
import torch
from inputs import assert_tokens, random_images
from torch import Tensor, nn

from unic.core.errors import WeightsError
from unic.models.positions import Resampling, resample_positions
from unic.teachers import TEACHERS, TeacherSpec, licence, missing_weights
from unic.teachers.fetch import WeightsFile
from unic.teachers.load import load_published, load_teacher

DEPTH = 2
PUBLISHED = [name for name in TEACHERS if isinstance(TEACHERS[name].weights, WeightsFile)]


def of(*families: str) -> list[str]:
    return [name for name in PUBLISHED if name.startswith(families)]


def small(name: str, path: Path) -> TeacherSpec:
    spec = TEACHERS[name]
    return dataclasses.replace(spec, options={**spec.options, "depth": DEPTH}, weights=lambda: path)


@pytest.fixture
def load_small(monkeypatch: pytest.MonkeyPatch):
    """Loads a published teacher, two blocks deep, from a given file."""

    def load(name: str, path: Path, **options):
        monkeypatch.setitem(TEACHERS._entries, name, small(name, path))
        return load_published(name, options).eval()

    list(TEACHERS)  # fills the registry before it is patched
    return load


def random_model(name: str, **options) -> nn.Module:
    """timm's model with every parameter away from its initial value: norms, biases and layer-scale included."""
    torch.manual_seed(0)
    spec = TEACHERS[name]
    model = timm.create_model(spec.model, depth=DEPTH, **{"img_size": 224, **spec.options, **options}).eval()
    for parameter in model.parameters():
        nn.init.normal_(parameter, mean=0.1 if parameter.ndim == 1 else 0.0, std=0.05)
    return model


def normalised(images: Tensor, spec: TeacherSpec) -> Tensor:
    return inputs.normalised(images, spec.mean, spec.std)


@torch.no_grad()
def assert_gives(encoder, cls: Tensor, patches: Tensor) -> None:
    assert_tokens(encoder(random_images(224)), cls, patches, rtol=1e-5, atol=1e-5)


@torch.no_grad()
def features(model, name: str) -> Tensor:
    return model.forward_features(normalised(random_images(224), TEACHERS[name]))


def training_script(state: dict[str, Tensor]) -> dict:
    """What PyTorch training scripts save: the weights of a wrapped model, among options and numpy schedules."""
    schedule = np.linspace(1e-3, 0, 7)
    return {
        "model": collections.OrderedDict((f"module.{key}", tensor) for key, tensor in state.items()),
        "optimizer": {"state": {}, "param_groups": [{"lr": np.float64(0.1)}]},
        "epoch": 3,
        "args": argparse.Namespace(lr=0.1, lr_schedule=schedule, flags=np.array([True, False])),
        "counts": collections.defaultdict(int, a=1),
    }


@pytest.mark.parametrize("name", of("dino_", "ibot_"))
def test_dino_and_ibot_give_the_class_token_and_patches_after_the_norm(name: str, tmp_path: Path, load_small):
    model = random_model(name, num_classes=0)
    content = {"state_dict": model.state_dict()} if name.startswith("ibot") else model.state_dict()
    torch.save(content, tmp_path / "w.pth")
    expected = features(model, name)
    assert_gives(load_small(name, tmp_path / "w.pth"), expected[:, 0], expected[:, 1:])


@pytest.mark.parametrize("name", of("deit3_"))
def test_deit3_adds_196_positions_to_patches_only_and_scales_its_layers(
    name: str, tmp_path: Path, load_small
):
    model = random_model(name)
    state = {
        re.sub(r"ls([12])\.gamma", r"gamma_\1", key): tensor for key, tensor in model.state_dict().items()
    }
    assert state["pos_embed"].shape[1] == 196 and "blocks.0.gamma_1" in state and "head.weight" in state
    torch.save(training_script(state), tmp_path / "w.pth")
    expected = features(model, name)
    assert_gives(load_small(name, tmp_path / "w.pth"), expected[:, 0], expected[:, 1:])


def test_dbot_gives_fc_norm_of_the_patch_mean_and_raw_patches(tmp_path: Path, load_small):
    model = random_model("dbotft_vitb16", num_classes=1000)
    assert {
        "fc_norm.weight",
        "head.weight",
    } <= model.state_dict().keys() and "norm.weight" not in model.state_dict()
    torch.save(training_script(model.state_dict()), tmp_path / "w.pth")
    patches = features(model, "dbotft_vitb16")[:, 1:]
    with torch.no_grad():
        cls = model.fc_norm(patches.mean(1))
    assert_gives(load_small("dbotft_vitb16", tmp_path / "w.pth"), cls, patches)


def published_dinov2(model, registers: bool, *, chunked: bool) -> dict[str, Tensor]:
    """timm's weights in DINOv2's layout, written out by hand."""
    names = {"reg_token": "register_tokens"}
    if "blocks.0.mlp.norm.weight" not in model.state_dict() and hasattr(model.blocks[0].mlp, "fc1_g"):
        raise AssertionError("unexpected kind of SwiGLU")
    swiglu = model.blocks[0].mlp.fc1.out_features != model.blocks[0].mlp.fc2.in_features
    state = {"mask_token": torch.zeros(1, model.embed_dim)}
    for key, tensor in model.state_dict().items():
        key = names.get(key, key)
        if swiglu:
            key = key.replace("mlp.fc1.", "mlp.w12.").replace("mlp.fc2.", "mlp.w3.")
        if chunked:
            key = re.sub(r"^blocks\.(\d+)\.", r"blocks.0.\1.", key)
        state[key] = tensor.clone()
    if registers:  # the file has one position for CLS, timm has it inside the class token
        position = torch.randn(1, 1, model.embed_dim)
        state["pos_embed"] = torch.cat([position, state["pos_embed"]], dim=1)
        state["cls_token"] -= position
    return state


@pytest.mark.parametrize("chunked", [False, True])
@pytest.mark.parametrize("name", of("dinov2_"))
def test_dinov2_leaves_out_registers_and_mask_token(name: str, chunked: bool, tmp_path: Path, load_small):
    registers = name.endswith("_reg")
    model = random_model(name)
    torch.save(published_dinov2(model, registers, chunked=chunked), tmp_path / "w.pth")
    expected = features(model, name)
    encoder = load_small(name, tmp_path / "w.pth")
    assert_gives(encoder, expected[:, 0], expected[:, 5 if registers else 1 :])
    assert encoder.grid == (16, 16)


def test_dinov2_files_convert_as_timm_converts_them(tmp_path: Path):
    from timm.models.vision_transformer import checkpoint_filter_fn

    model = random_model("dinov2_vitg14_reg")
    state = published_dinov2(model, True, chunked=False)
    theirs = checkpoint_filter_fn(dict(state), model)
    ours = TEACHERS["dinov2_vitg14_reg"].convert(state)
    assert ours.keys() == theirs.keys()
    for key, tensor in theirs.items():
        torch.testing.assert_close(ours[key], tensor, msg=key)


def test_metaclip_gives_open_clips_tokens_before_the_projection(tmp_path: Path, load_small):
    transformer = pytest.importorskip("open_clip").transformer
    torch.manual_seed(0)
    tower = transformer.VisionTransformer(
        image_size=224,
        patch_size=14,
        width=1280,
        layers=DEPTH,
        heads=16,
        mlp_ratio=4.0,
        output_dim=1024,
        act_layer=transformer.QuickGELU,
        output_tokens=True,
    ).eval()
    for parameter in tower.parameters():
        nn.init.normal_(parameter, mean=0.05 if parameter.ndim == 1 else 0.0, std=0.05)
    state = {f"visual.{key}": tensor for key, tensor in tower.state_dict().items()}
    state |= {"token_embedding.weight": torch.ones(4, 2), "logit_scale": torch.tensor(1.0)}
    torch.save({"epoch": 1, "name": "h14", "state_dict": state}, tmp_path / "w.pt")
    x = normalised(random_images(224), TEACHERS["metaclip_vith14"])
    with torch.no_grad():
        hidden = tower.transformer(tower._embeds(x))
        expected = tower.ln_post(hidden)
    encoder = load_small("metaclip_vith14", tmp_path / "w.pt")
    assert_gives(encoder, expected[:, 0], expected[:, 1:])
    assert encoder.mean.flatten().tolist() == pytest.approx([0.48145466, 0.4578275, 0.40821073])


@pytest.mark.parametrize("name", of("naver_unic"))
def test_a_published_student_is_an_encoder_too(name: str, tmp_path: Path, load_small):
    model = random_model(name, num_classes=0)
    state = {re.sub(r"^blocks\.", "encoder.blocks.0.", key): t for key, t in model.state_dict().items()}
    state = {key if key.startswith("encoder.") else f"encoder.{key}": t for key, t in state.items()}
    state |= {
        "encoder.mask_token": torch.zeros(1, 768),
        "lp.heads.dino.cls.0.layers.0.weight": torch.ones(2, 2),
    }
    torch.save(training_script(state), tmp_path / "w.pth")
    expected = features(model, name)
    assert_gives(load_small(name, tmp_path / "w.pth"), expected[:, 0], expected[:, 1:])


@pytest.mark.parametrize(
    ("name", "size"),
    [("dino_vits16", 336), ("deit3_vits16", 160), ("dinov2_vits14", 518), ("dinov2_vits14_reg", 98)],
)
def test_any_image_size_can_be_asked_for(name: str, size: int, tmp_path: Path, load_small):
    model = random_model(name)
    state = model.state_dict()
    if name.startswith("dinov2"):
        state = published_dinov2(model, name.endswith("_reg"), chunked=False)
    torch.save({re.sub(r"ls([12])\.gamma", r"gamma_\1", k) if "deit3" in name else k: t for k, t in state.items()},
               tmp_path / "w.pth")  # fmt: skip
    encoder = load_small(name, tmp_path / "w.pth", image_size=size)
    assert encoder.grid == (size // encoder.patch_size,) * 2 and encoder.image_size == size
    with torch.no_grad():
        assert encoder(random_images(100)).patches.isfinite().all()


def cubic(distance: np.ndarray) -> np.ndarray:
    """Keys' kernel with a = -0.75, which torch uses without antialiasing."""
    x, a = np.abs(distance), -0.75
    near, far = (a + 2) * x**3 - (a + 3) * x**2 + 1, a * (x**3 - 5 * x**2 + 8 * x - 4)
    return np.where(x <= 1, near, np.where(x < 2, far, 0.0))


@pytest.mark.parametrize(("side", "rows"), [(37, 16), (14, 21), (5, 7)])
def test_an_offset_samples_where_dino_samples(side: int, rows: int):
    """By brute force in float64: row i of the new grid lies at (i + 0.5) * side / (rows + 0.1) - 0.5."""
    positions = torch.randn(1, 1 + side * side, 3, generator=torch.Generator().manual_seed(0))
    found = resample_positions(
        positions, rows, rows, num_prefix=1, how=Resampling(antialias=False, offset=0.1)
    )
    weights = np.zeros((rows, side))
    for i in range(rows):
        place = (i + 0.5) * side / (rows + 0.1) - 0.5
        for neighbour in range(int(np.floor(place)) - 1, int(np.floor(place)) + 3):
            weights[i, min(max(neighbour, 0), side - 1)] += cubic(np.array(place - neighbour))
    grid = positions[0, 1:].double().numpy().reshape(side, side, 3)
    expected = np.einsum("ih,jw,hwd->ijd", weights, weights, grid).reshape(-1, 3)
    np.testing.assert_allclose(found[0, 1:].numpy(), expected, atol=1e-5)
    assert torch.equal(found[:, :1], positions[:, :1])


def test_without_an_offset_positions_are_resampled_as_timm_does():
    positions = torch.randn(1, 1 + 49, 8)
    ours = resample_positions(positions, 4, 4, num_prefix=1, how=Resampling())
    theirs = timm.layers.resample_abs_pos_embed(positions, [4, 4], num_prefix_tokens=1)
    torch.testing.assert_close(ours, theirs)
    assert resample_positions(positions, 7, 7, num_prefix=1, how=Resampling()) is positions


def test_layer_reads_the_tokens_of_an_earlier_block_through_the_final_norm(tmp_path: Path, load_small):
    model = random_model("dino_vits16", num_classes=0)
    torch.save(model.state_dict(), tmp_path / "w.pth")
    with torch.no_grad():
        x = model._pos_embed(model.patch_embed(normalised(random_images(224), TEACHERS["dino_vits16"])))
        expected = model.norm(model.blocks[0](x))
    encoder = load_small("dino_vits16", tmp_path / "w.pth", layer=-2)
    assert_gives(encoder, expected[:, 0], expected[:, 1:])
    last = load_small("dino_vits16", tmp_path / "w.pth", layer=-1)
    plain = load_small("dino_vits16", tmp_path / "w.pth")
    torch.testing.assert_close(last(random_images(224)).cls, plain(random_images(224)).cls)


def test_a_file_of_another_family_is_refused_by_name(tmp_path: Path, load_small):
    torch.save(random_model("deit3_vits16").state_dict(), tmp_path / "deit.pth")
    torch.save(random_model("dinov2_vits14").state_dict(), tmp_path / "dinov2.pth")
    for name, file in (
        ("dino_vits16", "deit.pth"),
        ("metaclip_vith14", "deit.pth"),
        ("dino_vits16", "dinov2.pth"),
    ):
        with pytest.raises(WeightsError, match=f"{file} holds weights of another architecture"):
            load_small(name, tmp_path / file)


def test_missing_keys_are_named(tmp_path: Path, load_small):
    state = random_model("dino_vits16", num_classes=0).state_dict()
    del state["blocks.1.attn.qkv.bias"]
    torch.save(state, tmp_path / "w.pth")
    with pytest.raises(WeightsError, match=r"1 missing: blocks\.1\.attn\.qkv\.bias"):
        load_small("dino_vits16", tmp_path / "w.pth")


def test_a_truncated_file_is_refused(tmp_path: Path, load_small):
    torch.save(random_model("dino_vits16", num_classes=0).state_dict(), tmp_path / "w.pth")
    content = (tmp_path / "w.pth").read_bytes()
    for share in (0.0, 0.001, 0.5, 0.999):
        (tmp_path / "cut.pth").write_bytes(content[: int(len(content) * share)])
        with pytest.raises(WeightsError, match=r"cut\.pth is no"):
            load_small("dino_vits16", tmp_path / "cut.pth")


class Malicious:
    def __init__(self, path: Path):
        self.path = path

    def __reduce__(self):
        return (Path.touch, (self.path,))


@pytest.mark.parametrize("legacy", [False, True])
def test_a_malicious_file_is_refused_by_type_and_never_run(tmp_path: Path, legacy: bool, load_small):
    trap = tmp_path / "trap"
    content = {"model": {"a": torch.ones(1)}, "args": Malicious(trap)}
    torch.save(content, tmp_path / "w.pth", _use_new_zipfile_serialization=not legacy)
    with pytest.raises(WeightsError, match=r"besides tensors \((pathlib|builtins|getattr)[\w.]*"):
        load_small("dino_vits16", tmp_path / "w.pth")
    (tmp_path / "plain.pth").write_bytes(pickle.dumps(content["args"]))
    with pytest.raises(WeightsError):
        load_small("dino_vits16", tmp_path / "plain.pth")
    assert not trap.exists()


def test_every_published_file_has_a_name_of_its_own():
    files = [TEACHERS[name].weights for name in PUBLISHED]
    assert len({file.name for file in files}) == len(files) == len({file.url for file in files})


def test_the_mission_s_teachers_are_there():
    names = ["dino_vitb16", "ibot_vitb16", "deit3_vitb16", "dbotft_vitb16", "metaclip_vith14"]
    names += [f"dinov2_vit{size}14{registers}" for size in "sblg" for registers in ("", "_reg")]
    assert set(names) <= set(PUBLISHED)
    assert licence("metaclip_vith14") == "CC BY-NC 4.0" and licence("timm:resnet18") is None


def test_what_is_missing_is_known_before_anything_is_loaded(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("UNIC_WEIGHTS", str(tmp_path))
    missing = missing_weights("dino_vitb16?image_size=336")
    assert missing is not None and missing.url.endswith("dino_vitbase16_pretrain.pth")
    (tmp_path / missing.name).write_bytes(b"x")
    assert missing_weights("dino_vitb16") is None and missing_weights("timm:resnet18") is None


def test_a_published_teacher_loads_from_a_file_placed_by_hand(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setenv("UNIC_WEIGHTS", str(tmp_path))
    model = timm.create_model("vit_small_patch16_224", num_classes=0).eval()
    torch.save(model.state_dict(), tmp_path / "dino_deitsmall16_pretrain.pth")
    encoder = load_teacher("dino_vits16")
    with torch.no_grad():
        expected = model.forward_features(normalised(random_images(224), TEACHERS["dino_vits16"]))
    assert_gives(encoder, expected[:, 0], expected[:, 1:])
