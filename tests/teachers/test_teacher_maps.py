"""Maps of teachers from elsewhere at sizes they were not built for: each library's own forward is the oracle."""

from pathlib import Path
from typing import Any

import pytest
import timm
import torch
from inputs import assert_tokens
from safetensors.torch import save_file
from torch import Tensor, nn

from unic.core.errors import ConfigError
from unic.models.positions import Resampling, resample_positions
from unic.teachers.load import load_teacher

VIT = {
    "hidden_size": 32, "num_hidden_layers": 3, "num_attention_heads": 2, "intermediate_size": 64,
    "image_size": 32, "patch_size": 8,
}  # fmt: skip


def pixels(height: int, width: int) -> Tensor:
    return torch.randn(2, 3, height, width, generator=torch.Generator().manual_seed(1))


def flat(maps: Tensor) -> Tensor:
    return maps.flatten(2).transpose(1, 2)


def randomise(model: Any) -> Any:
    torch.manual_seed(0)
    for parameter in model.parameters():  # fresh biases are 0 and norms 1, which would hide a forgotten norm
        nn.init.normal_(parameter, std=0.2)
    return model.eval()


def hf(name: str, folder: Path, **changes: Any) -> Any:
    transformers = pytest.importorskip("transformers")
    model = randomise(
        getattr(transformers, f"{name}Model")(getattr(transformers, f"{name}Config")(**{**VIT, **changes}))
    )
    model.save_pretrained(folder)
    return model


# The name of the final norm, and how many tokens come before the patches.
HF = {
    "Dinov2": ("layernorm", 1, {}),
    "Dinov2WithRegisters": ("layernorm", 4, {"num_register_tokens": 3}),
    "DINOv3ViT": ("norm", 4, {"num_register_tokens": 3}),
    "ViT": ("layernorm", 1, {}),
    "CLIPVision": ("post_layernorm", 1, {}),
    "SiglipVision": ("post_layernorm", 0, {}),
}


@pytest.mark.parametrize("name", HF)
def test_a_vit_of_transformers_is_read_before_and_after_its_norm(name: str, tmp_path: Path):
    norm, prefix, changes = HF[name]
    model = hf(name, tmp_path, **changes)
    encoder = load_teacher(f"hf:{tmp_path}?image_size=32")
    x = pixels(40, 64)
    tower = getattr(model, "vision_model", model)
    layers: Any = next(
        module for module in tower.modules() if isinstance(module, nn.ModuleList) and len(module) == 3
    )
    outputs: list[Tensor] = []
    hooks = [
        layer.register_forward_hook(
            lambda _, inputs, out: outputs.append(out[0] if isinstance(out, tuple) else out)
        )
        for layer in layers
    ]
    options = {} if name.lower().startswith("dino") else {"interpolate_pos_encoding": True}
    with torch.no_grad():
        model(x, **options)
    for hook in hooks:
        hook.remove()
    sized = encoder.at_size(40, 64)
    for normed in (False, True):
        found = sized.maps(x, (-1, 0, -2), norm=normed)
        for ours, block in zip(found, (outputs[2], outputs[0], outputs[1]), strict=True):
            expected = getattr(tower, norm)(block) if normed else block
            torch.testing.assert_close(flat(ours.patches), expected[:, prefix:], atol=1e-5, rtol=1e-5)
            cls = expected[:, 0] if prefix else expected.mean(1)
            torch.testing.assert_close(ours.cls, cls, atol=1e-5, rtol=1e-5)
            assert ours.patches.shape[2:] == (5, 8)
    torch.testing.assert_close(sized.maps(x)[0].patches, sized.maps(x, (2,))[0].patches, atol=1e-5, rtol=1e-5)


def test_stages_of_a_cnn_of_transformers_are_maps(tmp_path: Path):
    transformers = pytest.importorskip("transformers")
    config = transformers.ConvNextConfig(depths=[1, 1, 1, 1], hidden_sizes=[4, 8, 12, 16])
    model = randomise(transformers.ConvNextModel(config))
    model.save_pretrained(tmp_path)
    encoder = load_teacher(f"hf:{tmp_path}?image_size=64")
    x = pixels(64, 96)
    last, inner = encoder.at_size(64, 96).maps(x, (-1, -2))
    expected = model(x, output_hidden_states=True)
    torch.testing.assert_close(last.patches, expected.last_hidden_state, atol=1e-5, rtol=1e-5)
    torch.testing.assert_close(inner.patches, expected.hidden_states[-2], atol=1e-5, rtol=1e-5)
    torch.testing.assert_close(inner.cls, inner.patches.mean((2, 3)))


@pytest.fixture(scope="module")
def clip(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Weights of a small ViT of open_clip, at 48 pixels where the architecture says 32, and of one of timm's."""
    pytest.importorskip("open_clip")
    from small_open_clip import add_architectures, model_in_file

    folder = tmp_path_factory.mktemp("open_clip")
    add_architectures(folder)
    model_in_file("unic-vit", folder / "vit.pt", force_image_size=48)
    model_in_file("unic-token", folder / "timm.pt")
    return folder


def test_a_vit_of_open_clip_is_resampled_from_the_grid_of_its_file(clip: Path):
    reference = f"open_clip:unic-vit/{clip / 'vit.pt'}"
    small, own = load_teacher(reference), load_teacher(f"{reference}?image_size=48")
    x = pixels(48, 48)
    for layers, norm in (((-1,), True), ((-1, 0), True), ((-1, 0), False)):
        for ours, expected in zip(
            small.at_size(48, 48).maps(x, layers, norm=norm), own.maps(x, layers, norm=norm), strict=True
        ):
            assert_tokens(ours, expected.cls, expected.patches, atol=1e-5, rtol=1e-5)
    assert flat(own.maps(x)[0].patches).equal(own.tokens(x).patches)
    # Not square: the resampled positions put into open_clip's own forward.
    wide = own.at_size(24, 64)
    native = torch.load(clip / "vit.pt")["state_dict"]["module.visual.positional_embedding"]
    expected = resample_positions(native[None], 3, 8, num_prefix=1, how=Resampling())[0]
    assert wide.model.positional_embedding.equal(expected)
    assert wide.maps(pixels(24, 64))[0].patches.shape == (2, 32, 3, 8)
    assert own.model.positional_embedding.equal(native)


def test_a_timm_tower_of_open_clip_is_resampled_from_the_grid_of_its_file(clip: Path):
    reference = f"open_clip:unic-token/{clip / 'timm.pt'}"
    small, own = load_teacher(f"{reference}?image_size=64"), load_teacher(reference)
    assert small.at_size(160, 160).model.pos_embed.equal(own.model.pos_embed)


def test_a_resnet_of_open_clip_says_that_it_has_one_size(clip: Path):
    encoder = load_teacher("open_clip:unic-resnet?pretrained=0")
    assert encoder.at_size(64, 64).maps(pixels(64, 64))[0].patches.shape[2:] == (2, 2)
    with pytest.raises(
        ConfigError, match="reads pictures of 64 x 64 pixels only, because its attention pool"
    ):
        encoder.at_size(64, 96)


HUBCONF = """
import timm
import torch

dependencies = ["torch", "timm"]


class Dinov2(torch.nn.Module):
    def __init__(self):
        super().__init__()
        torch.manual_seed(0)
        self.vit = timm.create_model("test_vit", dynamic_img_size=True, num_classes=0)
        torch.nn.init.normal_(self.vit.norm.weight)
        self.blocks = self.vit.blocks

    def forward_features(self, x):
        tokens = self.vit.forward_features(x)
        return {"x_norm_clstoken": tokens[:, 0], "x_norm_patchtokens": tokens[:, 1:]}

    def get_intermediate_layers(self, x, n=1, reshape=False, return_class_token=False, norm=True):
        pairs = self.vit.forward_intermediates(
            x, indices=n, norm=norm, output_fmt="NLC", return_prefix_tokens=True, intermediates_only=True
        )
        return tuple((patches, prefix[:, 0]) for patches, prefix in pairs)


def dinov2():
    return Dinov2()
"""


def test_a_dinov2_of_torch_hub_is_read_at_any_size_and_block(tmp_path: Path):
    (tmp_path / "hubconf.py").write_text(HUBCONF)
    encoder = load_teacher(f"hub:{tmp_path}:dinov2?image_size=160")
    vit, x = encoder.model.vit, pixels(64, 96)
    sized = encoder.at_size(64, 96)
    torch.testing.assert_close(flat(sized.maps(x)[0].patches), vit.forward_features(x)[:, 1:])
    for norm in (True, False):
        expected = vit.get_intermediate_layers(x, [0, 2], reshape=True, norm=norm)
        found = sized.maps(x, (2, 0), norm=norm)
        assert found[0].patches.equal(expected[1]) and found[1].patches.equal(expected[0])


def test_a_file_of_a_timm_model_is_resampled_from_its_own_grid(tmp_path: Path):
    torch.manual_seed(0)
    model = timm.create_model("test_vit", num_classes=0)  # 160 pixels: 10 x 10 patches
    save_file(model.state_dict(), tmp_path / "vit.safetensors")
    small = load_teacher(f"file:{tmp_path / 'vit.safetensors'}?model=test_vit&image_size=64")
    assert small.at_size(160, 160).model.pos_embed.equal(model.pos_embed)
    x = pixels(160, 160)
    torch.testing.assert_close(
        flat(small.at_size(160, 160).maps(x)[0].patches), model.eval().forward_features(x)[:, 1:]
    )


def test_timms_own_weights_are_resampled_from_their_own_grid(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    torch.manual_seed(0)
    model = timm.create_model("test_vit", num_classes=0)
    save_file(model.state_dict(), tmp_path / "vit.safetensors")
    import unic.teachers.from_timm as from_timm

    monkeypatch.setattr(  # instead of the hub's cache
        from_timm,
        "_cached",
        lambda name: {
            "pretrained_cfg_overlay": {"file": str(tmp_path / "vit.safetensors"), "num_classes": 0}
        },
    )
    small = load_teacher("timm:test_vit?image_size=64")
    assert small.at_size(160, 160).model.pos_embed.equal(model.pos_embed)
    # At its own size it is what timm makes of the file at that size.
    timms = timm.create_model(
        "test_vit", img_size=64, pretrained=True, num_classes=0,
        pretrained_cfg_overlay={"file": str(tmp_path / "vit.safetensors"), "num_classes": 0},
    )  # fmt: skip
    torch.testing.assert_close(small.model.pos_embed, timms.pos_embed)
    assert small.model.pos_embed.shape[1] == 17
