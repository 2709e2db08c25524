import errno
import logging
import multiprocessing
import os
import random
import time
from pathlib import Path
from typing import ClassVar

import launch
import numpy as np
import pytest
import torch
from PIL import Image
from torch.testing import assert_close

from unic.core import distributed
from unic.core.errors import DataError
from unic.core.files import MANIFEST, TEMPORARY
from unic.data import eval_loader
from unic.data.folders import read_image_folder
from unic.data.labeled_images import ImageList
from unic.evals import feature_store
from unic.evals.feature_store import OnDisk, locked
from unic.evals.features import extract
from unic.evals.registry import EvalOptions
from unic.method.types import Tokens

CPU = torch.device("cpu")


def extract_all(
    encoders, images: ImageList, *, workers: int = 0, batch_size: int = 256, precision="fp32", **options
):
    settings = EvalOptions(workers=workers, batch_size=batch_size, precision=precision)
    return extract(encoders, images, settings, device=CPU, **options)


def extract_one(encoder, images: ImageList, **options) -> dict:
    (features,) = extract_all([encoder], images, **options)
    return features


def cls(encoder, images: ImageList, cache: Path | None = None, **options):
    return extract_one(encoder, images, cache_root=cache, **options)["cls"]


def cached(cache: Path) -> list[Path]:
    """Folders of finished features."""
    return sorted(p for p in (cache / "features").iterdir() if p.is_dir() and not p.name.startswith("."))


def unfinished(cache: Path) -> list[Path]:
    return sorted((cache / "features").glob(f"{TEMPORARY}*"))


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
    found = extract_one(encoder, images, batch_size=18, tokens=("cls", "patch_mean"))
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
    extract_one(encoder, images, workers=workers)
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
    extract_one(encoder, images, cache_root=tmp_path, tokens=("cls", "patch_mean"))
    assert len(cached(tmp_path)) == 2 and encoder.calls == 2


def test_every_flipped_bit_is_seen_and_the_features_are_computed_again(encoder, images, tmp_path, caplog):
    expected = cls(encoder, images, tmp_path).clone()  # the file is changed where it lies, under the map
    rng = np.random.default_rng(0)
    for n in range(20):
        (folder,) = cached(tmp_path)
        file = folder / "features.f32"
        content = bytearray(file.read_bytes())
        content[rng.integers(len(content))] ^= 1 << rng.integers(8)
        file.write_bytes(content)
        with caplog.at_level(logging.WARNING):
            assert torch.equal(cls(encoder, images, tmp_path), expected)
        assert encoder.calls == 2 + n
        assert "damaged" in caplog.text
        caplog.clear()


@pytest.mark.parametrize("name", ["features.f32", "manifest.json"])
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


@pytest.mark.parametrize("error", [errno.ENOSPC, errno.EDQUOT])
def test_features_are_given_even_when_they_cannot_be_kept(
    encoder, images, tmp_path, monkeypatch, caplog, error
):
    def full(descriptor, offset, length):
        raise OSError(error, os.strerror(error))

    monkeypatch.setattr(os, "posix_fallocate", full)
    assert torch.equal(cls(encoder, images, tmp_path), cls(encoder, images))
    assert os.strerror(error) in caplog.text and "not kept" in caplog.text
    assert not cached(tmp_path) and not unfinished(tmp_path)


def test_a_cache_that_is_no_folder_costs_a_warning(encoder, images, tmp_path, caplog):
    (tmp_path / "features").write_text("")
    assert torch.equal(cls(encoder, images, tmp_path), cls(encoder, images))
    assert "not kept" in caplog.text


def test_a_file_system_that_promises_no_room_is_used_all_the_same(encoder, images, tmp_path, monkeypatch):
    def unknown(descriptor, offset, length):
        raise OSError(errno.EOPNOTSUPP, "Operation not supported")

    monkeypatch.setattr(os, "posix_fallocate", unknown)
    first = cls(encoder, images, tmp_path)
    assert torch.equal(cls(encoder, images, tmp_path), first) and encoder.calls == 1


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_features_that_are_not_finite_name_the_encoder_and_the_image(encoder, images, tmp_path, value):
    encoder.scale = value
    with pytest.raises(DataError, match=rf"mean-colour .* {images.paths[0]}"):
        cls(encoder, images, tmp_path)
    assert not cached(tmp_path) and not unfinished(tmp_path)


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
    monkeypatch.setattr("unic.core.progress.SECONDS_BETWEEN_LINES", 0.0)
    with caplog.at_level(logging.INFO):
        cls(encoder, images, batch_size=6)
    assert "12/18 images" in caplog.text and "img/s" in caplog.text and "s left" in caplog.text


class Noted(torch.nn.Module):
    """A linear map of the pixels, whose last bits depend on the batch; notes the images it sees as bytes of a file.

    pause: seconds for each batch, so that there is time to kill it.
    """

    name = "noted"
    spaces: ClassVar = {}
    dim = 16
    patch_dim = 24
    patch_size = 4

    def __init__(self, notes: Path, image_size: int = 8, pause: float = 0.0):
        super().__init__()
        self.notes, self.image_size, self.pause = notes, image_size, pause
        generator = torch.Generator().manual_seed(image_size)
        self.weight = torch.rand(3 * image_size**2, 64, generator=generator)

    def forward(self, images: torch.Tensor) -> Tokens:
        time.sleep(self.pause)
        with self.notes.open("ab") as file:
            file.write(b"." * len(images))
        output = (images.float() / 255).flatten(1) @ self.weight
        return Tokens(output[:, :16], output[:, 16:].unflatten(1, (2, 24)))

    def content_hash(self) -> str:
        return f"noted {self.image_size}"

    def count(self) -> int:
        return self.notes.stat().st_size if self.notes.exists() else 0


@pytest.fixture
def sizes(tmp_path) -> ImageList:
    """23 images of different shapes."""
    rng = np.random.default_rng(1)
    (tmp_path / "sizes").mkdir()
    paths = tuple(str(tmp_path / "sizes" / f"{i:02d}.png") for i in range(23))
    for i, path in enumerate(paths):
        Image.fromarray(rng.integers(0, 256, (9 + i % 5, 8 + i % 7, 3), dtype=np.uint8)).save(path)
    return ImageList(paths, name="sizes", root=str(tmp_path / "sizes"))


@pytest.fixture
def small_shards(monkeypatch):
    monkeypatch.setattr(feature_store, "IMAGES_PER_SHARD", 4)


ALL = ("cls", "patch_mean", "cls_patch_mean")


@pytest.mark.parametrize("cache", [False, True])
def test_together_each_encoder_gives_what_it_gives_alone_and_images_are_decoded_once(
    sizes, tmp_path, monkeypatch, small_shards, cache
):
    encoders = [Noted(tmp_path / "a", 8), Noted(tmp_path / "b", 12), Noted(tmp_path / "c", 8)]
    options = {"batch_size": 3, "tokens": ALL}
    alone = [extract_one(encoder, sizes, **options) for encoder in encoders]
    decoded = []
    read_image = eval_loader.read_image
    monkeypatch.setattr(eval_loader, "read_image", lambda path: decoded.append(path) or read_image(path))
    found = extract_all(encoders, sizes, cache_root=tmp_path if cache else None, **options)
    assert decoded == list(sizes.paths)
    for one, other in zip(alone, found, strict=True):
        assert list(other) == list(ALL)
        assert all(torch.equal(one[token], other[token]) for token in ALL)


def test_both_kinds_side_by_side_are_a_third_kind(sizes, tmp_path):
    found = extract_one(Noted(tmp_path / "a"), sizes, tokens=ALL)
    assert torch.equal(found["cls_patch_mean"], torch.cat([found["cls"], found["patch_mean"]], dim=1))


def test_an_encoder_whose_features_are_kept_is_left_out(sizes, tmp_path):
    first, second = Noted(tmp_path / "a"), Noted(tmp_path / "b", 12)
    cls(first, sizes, tmp_path)
    found = extract_all([second, first], sizes, cache_root=tmp_path)
    assert (first.count(), second.count()) == (23, 23)
    assert torch.equal(found[1]["cls"], cls(first, sizes))
    assert torch.equal(found[0]["cls"], cls(second, sizes))


def test_the_same_encoder_twice_is_computed_once(sizes, tmp_path):
    encoder = Noted(tmp_path / "a")
    one, other = extract_all([encoder, encoder], sizes, cache_root=tmp_path)
    assert encoder.count() == 23 and torch.equal(one["cls"], other["cls"])


def test_features_written_to_leave_the_cache_as_it_was(encoder, images, tmp_path):
    first = cls(encoder, images, tmp_path)
    expected = first.clone()
    first.zero_()
    assert torch.equal(cls(encoder, images, tmp_path), expected) and encoder.calls == 1


@pytest.mark.parametrize("name", [MANIFEST, "features.f32"])
def test_features_of_another_model_are_not_used(sizes, tmp_path, caplog, name):
    """Of the same shape, and copied over by hand: the whole folder, or only the numbers."""
    one, other = Noted(tmp_path / "a"), Noted(tmp_path / "b")
    other.weight, other.content_hash = 2 * other.weight, lambda: "other"
    cls(one, sizes, tmp_path)
    (mine,) = cached(tmp_path)
    cls(other, sizes, tmp_path)
    (theirs,) = set(cached(tmp_path)) - {mine}
    for file in theirs.iterdir():
        if name in (MANIFEST, file.name):
            (mine / file.name).write_bytes(file.read_bytes())
    assert torch.equal(cls(one, sizes, tmp_path), cls(one, sizes))
    assert "removed and computed again" in caplog.text and str(mine) in caplog.text


def test_any_flipped_bit_of_the_manifest_does_no_harm(sizes, tmp_path, small_shards):
    encoder = Noted(tmp_path / "a")
    expected = cls(encoder, sizes, tmp_path).clone()
    rng = np.random.default_rng(0)
    for _ in range(15):
        file = cached(tmp_path)[0] / MANIFEST
        content = bytearray(file.read_bytes())
        content[rng.integers(len(content))] ^= 1 << rng.integers(8)
        file.write_bytes(content)
        assert torch.equal(cls(encoder, sizes, tmp_path), expected)


def stop_after(encoder: Noted, num_images: int) -> None:
    """Makes it interrupt after so many images, as Ctrl-C would."""

    def stop(*_) -> None:
        if encoder.count() >= num_images:
            raise KeyboardInterrupt

    encoder.register_forward_pre_hook(stop)


def interrupted(sizes: ImageList, tmp_path: Path, num_images: int = 10) -> Noted:
    """Features of which 2 shards of 4 are done, and half of the third is encoded."""
    encoder = Noted(tmp_path / "a")
    stop_after(encoder, num_images)
    with pytest.raises(KeyboardInterrupt):
        cls(encoder, sizes, tmp_path, batch_size=2)
    encoder._forward_pre_hooks.clear()
    encoder.notes.unlink()
    return encoder


def test_an_interrupted_extraction_goes_on_after_its_last_shard(sizes, tmp_path, small_shards, caplog):
    encoder = interrupted(sizes, tmp_path)
    assert not cached(tmp_path) and len(unfinished(tmp_path)) == 1
    caplog.set_level(logging.INFO)
    assert torch.equal(
        cls(encoder, sizes, tmp_path, batch_size=2), cls(Noted(tmp_path / "b"), sizes, batch_size=2)
    )
    assert encoder.count() == 23 - 8 and "8 of 23 images were done before" in caplog.text
    assert {p.name for p in cached(tmp_path)[0].iterdir()} == {MANIFEST, "features.f32"}
    assert not unfinished(tmp_path)


def test_an_interruption_before_the_first_shard_leaves_nothing(sizes, tmp_path, small_shards):
    interrupted(sizes, tmp_path, 2)
    assert not cached(tmp_path) and not unfinished(tmp_path)


@pytest.mark.parametrize("harm", ["bit", "size", "record", "nonsense", "other shards"])
def test_damage_while_nobody_was_looking_is_computed_again(sizes, tmp_path, small_shards, monkeypatch, harm):
    encoder = interrupted(sizes, tmp_path)
    (part,) = unfinished(tmp_path)
    file, records = part / "features.f32", part / "shards-0.jsonl"
    lines = records.read_text().splitlines(keepends=True)
    left = 23
    if harm == "bit":  # in the second shard
        content = bytearray(file.read_bytes())
        content[5 * 16 * 4] ^= 1
        file.write_bytes(content)
        left -= 4
    elif harm == "size":
        file.write_bytes(file.read_bytes()[:-1])
    elif harm == "record":
        records.write_text(lines[0] + lines[1][:-9])  # a kill in the middle of a line
        left -= 4
    elif harm == "nonsense":
        records.write_text('{"start": "0"}\n')
    else:
        monkeypatch.setattr(feature_store, "IMAGES_PER_SHARD", 6)
    assert torch.equal(
        cls(encoder, sizes, tmp_path, batch_size=2), cls(Noted(tmp_path / "b"), sizes, batch_size=2)
    )
    assert encoder.count() == left
    assert torch.equal(cls(encoder, sizes, tmp_path), cls(Noted(tmp_path / "b"), sizes, batch_size=2))
    assert encoder.count() == left


def test_encoders_that_were_interrupted_at_different_places_are_completed_in_one_pass(
    sizes, tmp_path, small_shards
):
    """Of the first 8 images are done, of the second none, and the third is complete."""
    encoders = [interrupted(sizes, tmp_path), Noted(tmp_path / "b", 12), Noted(tmp_path / "c", 16)]
    cls(encoders[2], sizes, tmp_path, batch_size=2)
    options = {"batch_size": 2}
    found = extract_all(encoders, sizes, cache_root=tmp_path, **options)
    assert [encoder.count() for encoder in encoders] == [15, 23, 23]
    for encoder, features in zip(encoders, found, strict=True):
        assert torch.equal(features["cls"], extract_one(encoder, sizes, **options)["cls"])


def work(folder: str, paths: tuple[str, ...], pause: float, cache: bool = True) -> bytes:
    """Extracts in shards of 4, in any process; gives the features as bytes."""
    encoders = [Noted(Path(folder) / "a", 8, pause), Noted(Path(folder) / "b", 12)]
    options = {"batch_size": 3, "tokens": ALL}
    root = Path(folder) if cache else None
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(feature_store, "IMAGES_PER_SHARD", 4)
        found = extract_all(encoders, ImageList(paths, name="sizes"), cache_root=root, **options)
    return b"".join(features[token].numpy().tobytes() for features in found for token in ALL)


def start(*arguments) -> multiprocessing.process.BaseProcess:
    process = multiprocessing.get_context("forkserver").Process(target=work, args=arguments)
    process.start()
    return process


@pytest.mark.slow
def test_a_killed_extraction_goes_on_and_gives_the_same_bits(sizes, tmp_path):
    expected = work(str(tmp_path), sizes.paths, 0.0, False)
    (tmp_path / "a").unlink()
    draws, num_kills = random.Random(0), 0
    (tmp_path / "features").mkdir()
    while len(cached(tmp_path)) < 6:
        process = start(str(tmp_path), sizes.paths, 0.03)
        before, goal = time.monotonic(), Noted(tmp_path / "a").count() + 5
        while process.is_alive() and Noted(tmp_path / "a").count() < goal and time.monotonic() - before < 60:
            time.sleep(0.001)
        time.sleep(draws.random() * 0.05)
        num_kills += process.is_alive()
        process.kill()
        process.join()
    assert num_kills >= 3
    assert work(str(tmp_path), sizes.paths, 0.0) == expected
    # Every kill repeats at most the shard that was being computed, of two batches, and the batch after it.
    assert Noted(tmp_path / "a").count() <= 23 + 7 * num_kills


def test_two_processes_that_want_the_same_features_compute_them_once(sizes, tmp_path):
    expected = work(str(tmp_path), sizes.paths, 0.0, False)
    (tmp_path / "a").unlink()
    processes = [start(str(tmp_path), sizes.paths, 0.02) for _ in range(2)]
    assert launch.finish(*processes) == [0, 0]
    assert Noted(tmp_path / "a").count() == 23
    assert work(str(tmp_path), sizes.paths, 0.0) == expected
    assert len(cached(tmp_path)) == 6 and not unfinished(tmp_path)


@pytest.mark.parametrize("cache", [False, True])
@pytest.mark.parametrize("world", [2, pytest.param(3, marks=pytest.mark.slow)])
def test_several_processes_give_the_bits_of_one_to_each(sizes, tmp_path, cache, world):
    alone = work(str(tmp_path), sizes.paths, 0.0, False)
    (tmp_path / "a").unlink()
    arguments = (str(tmp_path), sizes.paths, 0.0, cache)
    assert launch.on_ranks(world, work, *arguments) == [alone] * world
    assert Noted(tmp_path / "a").count() == 23
    assert launch.on_ranks(world, work, *arguments) == [alone] * world
    assert Noted(tmp_path / "a").count() == (23 if cache else 46)
    if cache:
        assert work(*arguments) == alone


def test_several_processes_take_up_what_one_left_and_one_what_they_left(sizes, tmp_path):
    expected = work(str(tmp_path), sizes.paths, 0.0, False)
    for path in (sizes.paths[6], sizes.paths[21]):
        content = Path(path).read_bytes()
        Path(path).write_bytes(b"no picture")
        facts = Path(path).stat()
        answers = launch.on_ranks(2, work, str(tmp_path), sizes.paths, 0.0)
        assert answers[0] == answers[1] and "BadImage" in answers[0] and path in answers[0]
        assert not cached(tmp_path)
        Path(path).write_bytes(content)
        os.utime(path, ns=(facts.st_atime_ns, facts.st_mtime_ns))
    assert work(str(tmp_path), sizes.paths, 0.0) == expected


@pytest.mark.parametrize("kind", ["NaN on the second", "no room"])
def test_what_happens_to_one_process_happens_to_all(sizes, tmp_path, kind):
    function = second_fails if kind.startswith("NaN") else without_room
    answers = launch.on_ranks(2, function, str(tmp_path), sizes.paths)
    assert answers[0] == answers[1]
    if kind == "no room":
        assert answers[0] == work(str(tmp_path), sizes.paths, 0.0, False)
    else:
        assert "not finite" in answers[0] and sizes.paths[4] in answers[0]


def second_fails(folder: str, paths: tuple[str, ...]) -> bytes:
    if distributed.rank() == 1:
        Noted.forward = lambda self, images: Tokens(
            torch.full((len(images), 16), np.nan), torch.zeros(len(images), 2, 24)
        )
    return work(folder, paths, 0.0)


def without_room(folder: str, paths: tuple[str, ...]) -> bytes:
    (Path(folder) / "features").write_text("a file where a folder should be")
    return work(folder, paths, 0.0)


def test_a_disk_that_fills_up_keeps_what_was_done_and_says_so(sizes, tmp_path, small_shards, monkeypatch):
    encoder = Noted(tmp_path / "a")
    fsync, left = os.fsync, [4]

    def full(descriptor: int) -> None:
        left[0] -= 1
        if left[0] < 0:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        fsync(descriptor)

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(DataError, match=r"No space left.*make room and start again"):
        cls(encoder, sizes, tmp_path)
    monkeypatch.setattr(os, "fsync", fsync)
    encoder.notes.unlink()
    assert torch.equal(cls(encoder, sizes, tmp_path), cls(Noted(tmp_path / "b"), sizes))
    assert encoder.count() == 23 - 8


def test_waiting_for_another_process_is_announced(tmp_path, caplog):
    caplog.set_level(logging.INFO)
    stored = OnDisk(tmp_path, {"a": 1}, 3, 2)
    holder = multiprocessing.get_context("forkserver").Process(target=hold, args=(str(tmp_path),))
    holder.start()
    while not (tmp_path / "held").exists():
        time.sleep(0.01)
    with locked([stored]):
        assert (tmp_path / "released").exists()
    holder.join()
    assert "another process computes them; waiting" in caplog.text


def hold(folder: str) -> None:
    with locked([OnDisk(Path(folder), {"a": 1}, 3, 2)]):
        (Path(folder) / "held").touch()
        time.sleep(0.5)
        (Path(folder) / "released").touch()


@pytest.mark.slow
def test_two_hundred_megabytes_of_features_cost_no_memory(tmp_path):
    """Nothing of it to find them, and no page of our own to read them all: the file's pages can be dropped."""
    shape = (65_536, 768)
    stored = OnDisk(tmp_path, {"a": 1}, *shape)
    with locked([stored]):
        stored.prepare()
        for shard in feature_store.shards_of(shape[0]):
            stored.add(shard, torch.full((len(shard), shape[1]), float(shard.start)))
        stored.complete()
    before = memory()
    features = stored.find()
    assert features is not None and features.shape == shape
    assert memory()["VmRSS"] - before["VmRSS"] < 30
    for shard in feature_store.shards_of(shape[0]):
        assert (features[shard.start : shard.stop] == shard.start).all()
    assert memory()["RssAnon"] - before["RssAnon"] < 30


def memory() -> dict[str, float]:
    """Resident memory of this process in MB, and the part of it that only this process's own writes made."""
    lines = Path("/proc/self/status").read_text().splitlines()
    return {
        name: int(rest.split()[0]) / 1024
        for name, _, rest in (line.partition(":") for line in lines)
        if name in ("VmRSS", "RssAnon")
    }
