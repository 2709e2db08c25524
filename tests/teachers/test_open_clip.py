"""Image towers of open_clip: its own forward is the oracle, with the projection taken off."""

import pickle
import time
from pathlib import Path

import inputs
import pytest
import torch
from hub_cache import cache_repository
from inputs import CLIP_MEAN, CLIP_STD, assert_tokens, random_images

from unic.core.errors import ConfigError, WeightsError
from unic.models.timm_encoder import TimmEncoder
from unic.teachers.load import load_teacher

open_clip = pytest.importorskip("open_clip")
from small_open_clip import add_architectures, model_in_file  # noqa: E402


@pytest.fixture(autouse=True, scope="module")
def small_architectures(tmp_path_factory: pytest.TempPathFactory):
    add_architectures(tmp_path_factory.mktemp("open_clip"))


def normalised(x: torch.Tensor) -> torch.Tensor:
    return inputs.normalised(x, CLIP_MEAN, CLIP_STD)


@pytest.mark.parametrize("name", ["unic-vit", "unic-avg", "unic-avg-late", "unic-coca"])
def test_cls_is_what_open_clip_projects(tmp_path: Path, name: str):
    model = model_in_file(name, tmp_path / "m.pt")
    encoder = load_teacher(f"open_clip:{name}/{tmp_path}/m.pt")
    x = random_images(32)
    with torch.no_grad():
        expected = model.visual(normalised(x))
        tokens = encoder(x)
    expected = expected[0] if isinstance(expected, tuple) else expected
    torch.testing.assert_close(tokens.cls @ model.visual.proj, expected, rtol=1e-4, atol=1e-5)
    assert tokens.patches.shape == (2, 16, 32) and encoder.grid == (4, 4)


def test_patches_are_all_tokens_but_the_first_after_ln_post(tmp_path: Path):
    model = model_in_file("unic-vit", tmp_path / "m.pt")
    before = []
    model.visual.ln_post.register_forward_pre_hook(lambda _, inputs: before.append(inputs[0]))
    x = random_images(32)
    tokens = load_teacher(f"open_clip:unic-vit/{tmp_path}/m.pt")(x)
    with torch.no_grad():
        model.visual(normalised(x))
        expected = torch.nn.functional.layer_norm(
            before[0], (32,), model.visual.ln_post.weight, model.visual.ln_post.bias
        )
    assert_tokens(tokens, expected[:, 0], expected[:, 1:], rtol=1e-5, atol=1e-5)


def test_the_attention_pooler_of_coca_reads_the_patches_that_are_given(tmp_path: Path):
    """Keys of the pooler after its ln_k, without the class token."""
    model = model_in_file("unic-coca", tmp_path / "m.pt")
    keys = []
    model.visual.attn_pool.attn.register_forward_pre_hook(lambda _, inputs: keys.append(inputs[1]))
    x = random_images(32)
    with torch.no_grad():
        model.visual(normalised(x))
    tokens = load_teacher(f"open_clip:unic-coca/{tmp_path}/m.pt")(x)
    torch.testing.assert_close(tokens.patches, keys[0][:, 1:], rtol=1e-5, atol=1e-5)


def test_a_resnet_gives_its_attention_pool_and_its_last_map(tmp_path: Path):
    model = model_in_file("unic-resnet", tmp_path / "m.pt")
    visual, x = model.visual, random_images(64)
    tokens = load_teacher(f"open_clip:unic-resnet/{tmp_path}/m.pt")(x)
    with torch.no_grad():
        maps = visual.layer4(visual.layer3(visual.layer2(visual.layer1(visual.stem(normalised(x))))))
        torch.testing.assert_close(tokens.cls, visual(normalised(x)), rtol=1e-4, atol=1e-4)
    torch.testing.assert_close(tokens.patches, maps.flatten(2).transpose(1, 2), rtol=1e-4, atol=1e-4)
    earlier = load_teacher(f"open_clip:unic-resnet/{tmp_path}/m.pt?layer=2")
    assert earlier.grid == (8, 8) and torch.equal(earlier(x).cls, tokens.cls)
    with pytest.raises(ConfigError, match="has one image size, 64"):
        load_teacher("open_clip:unic-resnet?pretrained=0&image_size=96")


@pytest.mark.parametrize(("name", "size", "num_patches"), [("unic-map", 160, 100), ("unic-linear", 64, 4)])
def test_a_trunk_of_timm_is_read_as_timm_pools_it(tmp_path: Path, name: str, size: int, num_patches: int):
    model = model_in_file(name, tmp_path / "m.pt")
    encoder = load_teacher(f"open_clip:{name}/{tmp_path}/m.pt?image_size={size}")
    x = random_images(size)
    with torch.no_grad():
        tokens = encoder(x)
        expected = model.visual.trunk(normalised(x))
    assert isinstance(encoder, TimmEncoder) and tokens.patches.shape[1] == num_patches
    torch.testing.assert_close(tokens.cls, expected, rtol=1e-4, atol=1e-4)


def test_a_trunk_of_timm_that_classifies_from_its_token_gives_the_token(tmp_path: Path):
    model = model_in_file("unic-token", tmp_path / "m.pt")
    tokens = load_teacher(f"open_clip:unic-token/{tmp_path}/m.pt")(random_images(160))
    with torch.no_grad():
        features = model.visual.trunk.forward_features(normalised(random_images(160)))
        torch.testing.assert_close(tokens.cls, features[:, 0], rtol=1e-4, atol=1e-4)
        projected = model.visual.trunk.get_classifier()(tokens.cls)
        torch.testing.assert_close(
            projected, model.visual(normalised(random_images(160))), rtol=1e-4, atol=1e-4
        )


@pytest.mark.parametrize("name", ["unic-vit", "unic-avg", "unic-coca"])
def test_the_last_layer_is_the_default(name: str):
    x = random_images(32)
    default, last = (load_teacher(f"open_clip:{name}?pretrained=0{more}") for more in ("", "&layer=-1"))
    assert_tokens(last(x), default(x).cls, default(x).patches)
    first, same = (load_teacher(f"open_clip:{name}?pretrained=0&layer={layer}") for layer in (0, -3))
    torch.testing.assert_close(first(x).patches, same(x).patches)  # of three blocks
    assert not torch.allclose(first(x).patches, default(x).patches, atol=1e-2)
    assert torch.equal(first(x).cls, default(x).cls) == (
        name != "unic-vit"
    )  # what is pooled stays the model's


@pytest.mark.parametrize(("name", "size"), [("unic-vit", 48), ("unic-map", 192)])
def test_image_size_resamples_the_positions_as_open_clip_does(tmp_path: Path, name: str, size: int):
    model_in_file(name, tmp_path / "m.pt")
    model = open_clip.create_model(name, pretrained=f"{tmp_path}/m.pt", force_image_size=size).eval()
    encoder = load_teacher(f"open_clip:{name}/{tmp_path}/m.pt?image_size={size}")
    x = random_images(size)
    assert encoder.grid[0] == size // encoder.patch_size and encoder.image_size == size
    with torch.no_grad():
        cls = encoder(x).cls
        cls = cls @ model.visual.proj if name == "unic-vit" else cls
        torch.testing.assert_close(cls, model.visual(normalised(x)), rtol=1e-4, atol=1e-4)


def test_weights_of_another_architecture_are_refused(tmp_path: Path):
    model_in_file("unic-coca", tmp_path / "m.pt")
    with pytest.raises(WeightsError, match="another architecture"):
        load_teacher(f"open_clip:unic-vit/{tmp_path}/m.pt")


class Malicious:
    def __reduce__(self):
        return (Path.touch, (Path("ran"),))


def test_a_pickle_with_code_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.chdir(tmp_path)
    torch.save({"state_dict": {"a": Malicious()}}, "zip.pt")
    Path("bare.pt").write_bytes(pickle.dumps(Malicious()))
    for name in ("zip.pt", "bare.pt"):
        with pytest.raises(WeightsError, match="Python objects besides tensors"):
            load_teacher(f"open_clip:unic-vit/{name}")
    assert not Path("ran").exists()


@pytest.mark.parametrize(
    ("reference", "error", "words"),
    [
        ("open_clip:ViT-H-41/dfn5b", ConfigError, "did you mean"),
        ("open_clip:ViT-H-14/laion2b_s32b_b79x", ConfigError, "did you mean laion2b_s32b_b79k"),
        ("open_clip:ViT-H-14", ConfigError, r"\?pretrained=0"),
        ("open_clip:unic-vit/absent/m.pt", FileNotFoundError, "no weights at absent/m.pt"),
        ("open_clip:unic-vit?pretrained=0&layer=3", ConfigError, "out of range"),
        ("open_clip:unic-vit?pretrained=0&cls=token", ConfigError, "unknown option"),
    ],
)
def test_mistakes_are_explained(reference: str, error: type[Exception], words: str):
    with pytest.raises(error, match=words):
        load_teacher(reference)


def test_a_tag_brings_its_activation_mean_and_std(hub_cache: Path, monkeypatch: pytest.MonkeyPatch):
    """OpenAI's, MetaCLIP's and DFN's weights need QuickGELU also under the plain architecture's name."""
    mean, std = (0.5, 0.4, 0.3), (0.2, 0.3, 0.4)
    tag = {"hf_hub": "me/mine/", "mean": mean, "std": std, "quick_gelu": True}
    monkeypatch.setitem(open_clip.pretrained._PRETRAINED, "unic-vit", {"mine": tag})
    folder = cache_repository(hub_cache, "me/mine", absent=("open_clip_model.safetensors",))
    model = model_in_file("unic-vit", folder / "open_clip_pytorch_model.bin", force_quick_gelu=True)
    x = random_images(32)
    with torch.no_grad():
        expected = model.visual(inputs.normalised(x, mean, std))
        cls = load_teacher("open_clip:unic-vit/mine")(x).cls
    torch.testing.assert_close(cls @ model.visual.proj, expected, rtol=1e-4, atol=1e-5)


def test_a_file_is_prepared_for_as_the_published_weights_of_its_architecture(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    """SigLIP's mean and std are 0.5, CLIP's are not; a file of weights does not say."""
    model_in_file("unic-vit", tmp_path / "m.pt")
    half = {"hf_hub": "me/mine/", "mean": (0.5, 0.5, 0.5), "std": (0.5, 0.5, 0.5)}
    monkeypatch.setitem(open_clip.pretrained._PRETRAINED, "unic-vit", {"one": half, "two": half})
    encoder = load_teacher(f"open_clip:unic-vit/{tmp_path}/m.pt")
    assert encoder.mean.flatten().tolist() == [0.5] * 3
    other = {**half, "mean": CLIP_MEAN}
    monkeypatch.setitem(open_clip.pretrained._PRETRAINED, "unic-vit", {"one": half, "two": other})
    encoder = load_teacher(f"open_clip:unic-vit/{tmp_path}/m.pt")
    torch.testing.assert_close(encoder.mean.flatten(), torch.tensor(CLIP_MEAN))


@pytest.mark.parametrize("reference", ["ViT-B-32/laion2b_s34b_b79k", "roberta-ViT-B-32?pretrained=0"])
def test_without_network_a_tag_is_explained_at_once(no_network: None, reference: str):
    start = time.monotonic()
    with pytest.raises(FileNotFoundError, match=r"open_clip:.*check the name and the network"):
        load_teacher(f"open_clip:{reference}")
    assert time.monotonic() - start < 10
