import logging
import os
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from torch.testing import assert_close

from unic.data.images import ImageList, read_image_folder
from unic.errors import DataError
from unic.evals import features
from unic.evals.features import extract

CPU = torch.device("cpu")


def cls(encoder, images: ImageList, cache: Path | None = None, **options):
    return extract(encoder, images, device=CPU, workers=0, cache_root=cache, **options)["cls"]


def cached(cache: Path) -> list[Path]:
    return sorted((cache / "features").iterdir())


def test_features_are_what_the_encoder_says_in_the_order_of_the_list(encoder, images):
    found = cls(encoder, images, batch_size=4)
    pixels = np.stack([np.asarray(Image.open(path)) for path in images.paths])
    expected = torch.from_numpy(pixels).float().mean(dim=(1, 2)) / 255
    assert found.dtype == torch.float32
    assert_close(found, expected, atol=1e-6, rtol=0)  # float32 means of 64 pixels


@pytest.mark.parametrize("batch_size", [1, 5, 256])
def test_batch_size_changes_nothing(encoder, images, batch_size):
    assert_close(cls(encoder, images, batch_size=batch_size), cls(encoder, images, batch_size=7))


def test_two_kinds_of_token_come_from_one_pass(encoder, images):
    found = extract(encoder, images, device=CPU, workers=0, batch_size=18, tokens=("cls", "patch_mean"))
    assert encoder.calls == 1
    assert_close(found["cls"], found["patch_mean"])  # this encoder's CLS is the mean of its patches


def test_a_classifier_can_be_trained_on_features(encoder, images):
    weight = torch.zeros(3, requires_grad=True)
    (cls(encoder, images) @ weight).sum().backward()
    assert weight.grad is not None


def test_every_module_gets_its_own_mode_back(encoder, images):
    cls(encoder, images)
    assert encoder.modes == [False]
    assert encoder.training and not encoder.frozen.training


def test_modes_come_back_after_an_error_too(encoder, images):
    encoder.scale = float("nan")
    with pytest.raises(DataError):
        cls(encoder, images)
    assert encoder.training and not encoder.frozen.training


@pytest.mark.parametrize("workers", [0, 1])
def test_global_random_states_are_left_alone(encoder, images, workers):
    torch.manual_seed(3)
    np.random.seed(3)
    before = torch.get_rng_state(), np.random.get_state()[1].copy()
    extract(encoder, images, device=CPU, workers=workers)
    assert torch.equal(torch.get_rng_state(), before[0])
    assert (np.random.get_state()[1] == before[1]).all()


def test_the_second_time_the_encoder_is_not_called(encoder, images, tmp_path):
    first = cls(encoder, images, tmp_path)
    assert encoder.calls == 1
    assert torch.equal(cls(encoder, images, tmp_path), first)
    assert encoder.calls == 1


def test_without_a_cache_nothing_is_kept(encoder, images, tmp_path):
    cls(encoder, images)
    cls(encoder, images)
    assert encoder.calls == 2
    assert not list(tmp_path.rglob("*.safetensors"))


def test_only_the_missing_kind_of_token_is_added_to_the_cache(encoder, images, tmp_path):
    cls(encoder, images, tmp_path)
    extract(encoder, images, device=CPU, workers=0, cache_root=tmp_path, tokens=("cls", "patch_mean"))
    assert len(cached(tmp_path)) == 2 and encoder.calls == 2


def test_every_flipped_bit_is_seen_and_the_features_are_computed_again(encoder, images, tmp_path, caplog):
    expected = cls(encoder, images, tmp_path)
    rng = np.random.default_rng(0)
    for n in range(20):
        (folder,) = cached(tmp_path)
        file = folder / features._FILE
        content = bytearray(file.read_bytes())
        content[rng.integers(len(content))] ^= 1 << rng.integers(8)
        file.write_bytes(content)
        with caplog.at_level(logging.WARNING):
            assert torch.equal(cls(encoder, images, tmp_path), expected)
        assert encoder.calls == 2 + n
        assert "damaged" in caplog.text
        caplog.clear()


@pytest.mark.parametrize("name", [features._FILE, "manifest.json"])
@pytest.mark.parametrize("harm", ["missing", "empty", "cut"])
def test_a_partial_folder_is_never_used(encoder, images, tmp_path, name, harm):
    expected = cls(encoder, images, tmp_path)
    file = cached(tmp_path)[0] / name
    content = file.read_bytes()
    file.unlink()
    if harm != "missing":
        file.write_bytes(content[: len(content) // 2] if harm == "cut" else b"")
    assert torch.equal(cls(encoder, images, tmp_path), expected)
    assert encoder.calls == 2 and len(cached(tmp_path)) == 1


def test_other_weights_are_computed_again(encoder, images, tmp_path):
    first = cls(encoder, images, tmp_path)
    encoder.scale = 2.0
    assert_close(cls(encoder, images, tmp_path), 2 * first)
    assert encoder.calls == 2


def test_a_changed_image_is_computed_again(encoder, root, images, tmp_path):
    first = cls(encoder, images, tmp_path)
    Image.new("RGB", (8, 8), "white").save(images.paths[3])
    os.utime(images.paths[3], ns=(1, 1))  # a clock too coarse to tell is not what this is about
    second = cls(encoder, read_image_folder(root, "train"), tmp_path)
    assert_close(second[3], torch.ones(3))
    assert torch.equal(second[4:], first[4:]) and encoder.calls == 2


@pytest.mark.parametrize("change", ["precision", "image_size", "list", "matmul"])
def test_everything_features_depend_on_is_in_the_key(encoder, images, tmp_path, change):
    cls(encoder, images, tmp_path)
    options = {}
    if change == "precision":
        options["precision"] = "bf16"
    elif change == "image_size":
        encoder.image_size = 16
    elif change == "list":
        images = ImageList(images.paths[::-1], images.labels, images.classes, images.name, images.root)
    before = torch.get_float32_matmul_precision()
    try:
        torch.set_float32_matmul_precision("high" if change == "matmul" else before)
        cls(encoder, images, tmp_path, **options)
    finally:
        torch.set_float32_matmul_precision(before)
    assert encoder.calls == 2


def test_an_interrupted_extraction_leaves_nothing(encoder, images, tmp_path, monkeypatch):
    def interrupted(tensors, path):
        path.write_bytes(b"half of it")
        raise KeyboardInterrupt

    monkeypatch.setattr(features, "save_file", interrupted)
    with pytest.raises(KeyboardInterrupt):
        cls(encoder, images, tmp_path)
    assert cached(tmp_path) == []


def test_features_are_given_even_when_they_cannot_be_kept(encoder, images, tmp_path, monkeypatch, caplog):
    def full(tensors, path):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(features, "save_file", full)
    assert cls(encoder, images, tmp_path).shape == (18, 3)
    assert "No space left" in caplog.text


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_features_that_are_not_finite_name_the_encoder_and_the_image(encoder, images, tmp_path, value):
    encoder.scale = value
    with pytest.raises(DataError, match=rf"mean-colour .* {images.paths[0]}"):
        cls(encoder, images, tmp_path)
    assert not (tmp_path / "features").exists()


def test_a_damaged_image_is_an_error_that_names_it(encoder, images):
    Path(images.paths[5]).write_bytes(b"no picture")
    with pytest.raises(DataError, match=images.paths[5]):
        cls(encoder, images)


def test_an_empty_list_is_an_error(encoder):
    with pytest.raises(DataError, match="no images"):
        cls(encoder, ImageList((), name="nothing"))


def test_bf16_is_near_fp32(encoder, images):
    encoder.head = torch.nn.Linear(3, 3)
    assert_close(cls(encoder, images, precision="bf16"), cls(encoder, images), atol=2e-2, rtol=0)  # 8 bits


def test_the_bar_on_a_terminal_hands_on_every_batch(encoder, images, monkeypatch, capsys):
    plain = cls(encoder, images, batch_size=4)
    monkeypatch.setattr("sys.stderr.isatty", lambda: True, raising=False)
    assert torch.equal(cls(encoder, images, batch_size=4), plain)


def test_long_work_is_heard_of_now_and_then(encoder, images, monkeypatch, caplog):
    monkeypatch.setattr("unic.evals.progress.SECONDS_BETWEEN_LINES", 0.0)
    with caplog.at_level(logging.INFO):
        cls(encoder, images, batch_size=6)
    assert "12/18 images" in caplog.text and "img/s" in caplog.text and "s left" in caplog.text
