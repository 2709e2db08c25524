"""Masks and maps of depth, and the data sets that have them, on miniatures of their real layouts."""

import dataclasses
import json
import re
import shutil
import struct
import zlib
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from unic.core.errors import DataError
from unic.data.check_dataset import check_dataset
from unic.data.datasets import DATASETS, Roots, read_split
from unic.data.dense.label_encoding import IGNORED, Depths, Masks, distinct_colours
from unic.data.dense.read_annotations import read_depth, read_mask
from unic.evals.read_splits import read_splits

RULES = Masks(classes=("a", "b", "c"), palette=distinct_colours(3), first=1, ignored=(0, 255))
DEPTHS = Depths(scale=1000.0, nearest=1e-3, farthest=10.0, scored=(0, 4, 0, 6), border=(0, 4, 0, 6))


def save(path: Path, pixels: np.ndarray, mode: str | None = None) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(pixels, mode).save(path) if mode else Image.fromarray(pixels).save(path)
    return path


def picture(seed: int, height: int = 4, width: int = 6) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 256, (height, width, 3)).astype(np.uint8)


def ade(root: Path, numbers=(3, 2)) -> Path:
    """ADEChallengeData2016/ with all files of the real one."""
    base = root / "ADEChallengeData2016"
    for part, short, count in (("training", "train", numbers[0]), ("validation", "val", numbers[1])):
        for i in range(1, count + 1):
            name = f"ADE_{short}_{i:08}"
            save(base / "images" / part / f"{name}.jpg", picture(i))
            mask = np.random.default_rng(i).integers(0, 151, (4, 6)).astype(np.uint8)
            save(base / "annotations" / part / f"{name}.png", mask)
    (base / "objectInfo150.txt").write_text("Idx\tRatio\n")
    (base / "sceneCategories.txt").write_text("ADE_train_00000001 airport\n")
    return root


def folder(root: Path, note: dict | None = None, train: str = "train", val: str = "val") -> Path:
    for part in (train, val):
        for i in range(3):
            save(root / "images" / part / f"{part}{i}.png", picture(i))
            save(root / "annotations" / part / f"{part}{i}.png", np.full((4, 6), i % 2, dtype=np.uint8))
    (root / "dataset.json").write_text(json.dumps(note or {"classes": ["sky", "road"], "ignored": [11]}))
    return root


def nyu(root: Path, slash: str = "/") -> Path:
    """The layout of the lists that BTS published."""
    for list_name, scenes in (
        ("nyu_train.txt", ("kitchen_0028b", "bedroom_0001")),
        ("nyu_test.txt", ("bathroom",)),
    ):
        lines = []
        for scene in scenes:
            for i in range(2):
                image, depth = f"{scene}/rgb_{i:05}.jpg", f"{scene}/sync_depth_{i:05}.png"
                save(root / image, picture(i, 480, 640))
                metres = np.random.default_rng(i).integers(500, 9000, (480, 640)).astype(np.uint16)
                save(root / depth, metres)
                lines.append(f"{slash}{image} {slash}{depth} 518.8579")
        (root / list_name).write_text("\n".join(lines) + "\n")
    return root


def test_a_mask_is_read_as_classes_from_zero_on(tmp_path: Path):
    numbers = np.array([[0, 1, 2], [3, 255, 1]], dtype=np.uint8)
    found = read_mask(save(tmp_path / "m.png", numbers), RULES, (3, 2))
    assert found.tolist() == [[IGNORED, 0, 1], [2, IGNORED, 0]]
    assert found.dtype == torch.uint8


def test_a_mask_with_a_palette_is_read_by_its_numbers_and_not_its_colours(tmp_path: Path):
    image = Image.fromarray(np.array([[1, 2], [3, 0]], dtype=np.uint8), "P")
    image.putpalette([9, 9, 9] * 256)
    image.save(tmp_path / "m.png")
    assert read_mask(tmp_path / "m.png", RULES, (2, 2)).tolist() == [[0, 1], [2, IGNORED]]


def test_a_mask_of_16_bits_is_read(tmp_path: Path):
    rules = Masks(classes=("a", "b"), palette=distinct_colours(2), first=300, ignored=(0, 65535))
    numbers = np.array([[300, 301], [0, 65535]], dtype=np.uint16)
    assert read_mask(save(tmp_path / "m.png", numbers), rules, (2, 2)).tolist() == [
        [0, 1],
        [IGNORED, IGNORED],
    ]


def grey_png(path: Path, numbers: list[list[int]], bits: int) -> Path:
    """A grey PNG of so few bits a pixel, written byte by byte: Pillow writes 1, 8 or 16."""

    def chunk(kind: bytes, content: bytes) -> bytes:
        return (
            struct.pack(">I", len(content)) + kind + content + struct.pack(">I", zlib.crc32(kind + content))
        )

    lines = ["".join(f"{number:0{bits}b}" for number in row) for row in numbers]
    width = -(-len(lines[0]) // 8)
    rows = b"".join(b"\0" + int(line.ljust(8 * width, "0"), 2).to_bytes(width, "big") for line in lines)
    head = struct.pack(">IIBBBBB", len(numbers[0]), len(numbers), bits, 0, 0, 0, 0)
    content = chunk(b"IHDR", head) + chunk(b"IDAT", zlib.compress(rows)) + chunk(b"IEND", b"")
    path.write_bytes(b"\x89PNG\r\n\x1a\n" + content)
    return path


@pytest.mark.parametrize("bits", [1, 2, 4])
def test_a_grey_mask_of_few_bits_is_read_by_its_numbers(tmp_path: Path, bits: int):
    last = 2**bits - 1  # as white in Pillow it would be 255, which is ignored
    rules = Masks(classes=tuple(map(str, range(16))), palette=distinct_colours(16))
    numbers = [[0, last, 1], [last, 0, last // 2]]
    assert read_mask(grey_png(tmp_path / "m.png", numbers, bits), rules, (3, 2)).tolist() == numbers


def test_a_depth_is_read_in_metres(tmp_path: Path):
    path = save(tmp_path / "d.png", np.array([[0, 1500], [10000, 1]], dtype=np.uint16))
    assert read_depth(path, DEPTHS, (2, 2)).tolist() == [[0.0, 1.5], [10.0, pytest.approx(0.001)]]


@pytest.mark.parametrize(
    ("pixels", "size", "said"),
    [
        (
            np.array([[1, 7], [7, 7]], np.uint8),
            (2, 2),
            "the number 7 at 3 pixels is no class; wanted 1 to 3, or 0, 255",
        ),
        (np.ones((2, 2), np.uint8), (3, 2), "2 x 2 px, but its image has 3 x 2"),
        (np.ones((2, 2, 3), np.uint8), (2, 2), r"3 channels \(RGB\); wanted a mask with one number a pixel"),
        (np.ones((2, 2, 4), np.uint8), (2, 2), "4 channels"),
    ],
)
def test_a_wrong_mask_is_named_with_what_is_wrong(tmp_path: Path, pixels, size, said):
    path = save(tmp_path / "wrong.png", pixels)
    with pytest.raises(DataError, match=said) as caught:
        read_mask(path, RULES, size)
    assert str(path) in str(caught.value)


def test_files_that_are_missing_damaged_or_empty_are_named(tmp_path: Path):
    with pytest.raises(DataError, match=r"gone\.png: no such file \(wanted a mask\)"):
        read_mask(tmp_path / "gone.png", RULES, (2, 2))
    (tmp_path / "text.png").write_text("hello")
    with pytest.raises(DataError, match=r"text\.png: not an image"):
        read_depth(tmp_path / "text.png", DEPTHS, (2, 2))
    path = save(tmp_path / "zero.png", np.zeros((2, 2), np.uint16))
    with pytest.raises(DataError, match=r"zero\.png: all depths are 0"):
        read_depth(path, DEPTHS, (2, 2))


def test_a_depth_of_another_size_than_the_sets_is_refused(tmp_path: Path):
    path = save(tmp_path / "d.png", np.ones((240, 320), np.uint16))
    depths = DATASETS["nyud"].truth(tmp_path)
    assert isinstance(depths, Depths)
    with pytest.raises(DataError, match=r"d\.png: 320 x 240 px; wanted 640 x 480"):
        read_depth(path, depths, (320, 240))


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"classes": ()}, "0 classes"),
        ({"palette": ((0, 0, 0),)}, "1 colours for 3 classes"),
        ({"ignored": (2,)}, "2 is the number of a class and ignored"),
        ({"first": 65534}, "65536 is the number of the last class; wanted at most 65535"),
    ],
)
def test_rules_that_contradict_themselves_are_refused(changes: dict, said: str):
    with pytest.raises(DataError, match=said):
        dataclasses.replace(RULES, **{"ignored": (0,), **changes})


def test_colours_of_150_classes_all_differ():
    assert len(set(distinct_colours(150))) == 150


def test_ade20k_has_150_classes_whose_numbers_begin_at_1(tmp_path: Path):
    rules = DATASETS["ade20k"].truth(tmp_path)
    assert isinstance(rules, Masks)
    assert len(set(rules.classes)) == 150
    assert all(re.fullmatch("[a-z]+( [a-z]+)*", name) for name in rules.classes)
    assert (rules.classes[0], rules.classes[12], rules.classes[149]) == ("wall", "person", "flag")
    assert (rules.first, rules.ignored) == (1, (0, 255))


@pytest.mark.parametrize("inside", ["", "ADEChallengeData2016"])
def test_ade20k_pairs_images_and_masks(tmp_path: Path, inside: str):
    splits = read_splits("ade20k", Roots(ade(tmp_path) / inside), allow_count_mismatch=True)
    assert splits.train is not None and splits.train.maps and splits.test.maps
    assert (len(splits.train), len(splits.test)) == (3, 2)
    for images in (splits.train, splits.test):
        for image, mask in zip(images.paths, images.maps or (), strict=True):
            assert Path(image).stem == Path(mask).stem and Path(mask).is_file()
    assert not set(splits.train.paths) & set(splits.test.paths)


def test_the_published_counts_are_asked_for(tmp_path: Path):
    with pytest.raises(DataError, match=r"3 images in .*, expected 20210; complete it, or use it as it is"):
        read_split(DATASETS["ade20k"], ade(tmp_path), "training")
    with pytest.raises(DataError, match=r"4 images in .*, expected 24231"):
        read_split(DATASETS["nyud"], nyu(tmp_path / "nyu"), "train")


@pytest.mark.parametrize("slash", ["/", ""])
def test_nyud_reads_the_published_lists_sorted_by_name(tmp_path: Path, slash: str):
    splits = read_splits("nyud", Roots(nyu(tmp_path, slash)), allow_count_mismatch=True)
    assert splits.train is not None and splits.train.maps
    names = [str(Path(path).relative_to(tmp_path)) for path in splits.train.paths]
    assert names == sorted(names) and names[0] == "bedroom_0001/rgb_00000.jpg" and len(names) == 4
    assert splits.train.maps[0].endswith("bedroom_0001/sync_depth_00000.png")
    assert len(splits.test) == 2
    assert splits.truth == DATASETS["nyud"].truth(tmp_path)


@pytest.mark.parametrize(("train", "val"), [("train", "val"), ("training", "validation"), ("train", "test")])
def test_any_set_in_that_layout_says_itself_what_its_numbers_mean(tmp_path: Path, train: str, val: str):
    root = folder(tmp_path, {"classes": ["sky", "road"], "palette": [[1, 2, 3], [4, 5, 6]]}, train, val)
    splits = read_splits("segmentation_folder", Roots(root))
    assert splits.truth == Masks(classes=("sky", "road"), palette=((1, 2, 3), (4, 5, 6)), ignored=(255,))
    assert splits.train is not None and [Path(path).parent.name for path in splits.train.paths] == [train] * 3
    assert [Path(path).parent.name for path in splits.test.paths] == [val] * 3


@pytest.mark.parametrize(
    ("note", "said"),
    [
        (None, r"dataset\.json: no such file; wanted such as {"),
        ("[1]", "holds a list"),
        ("{}", "holds no 'classes'"),
        ('{"classes": "sky"}', "classes is 'sky'; wanted names"),
        ('{"classes": ["sky"], "ignore": [0]}', "unknown key 'ignore'"),
        ('{"classes": ["sky"], "first": "1"}', r"first is \['1'\]; wanted whole numbers"),
        ('{"classes": ["sky"], "ignored": [true]}', "wanted whole numbers"),
        ('{"classes": ["sky"], "ignored": [-1]}', "the number -1"),
        ('{"classes": ["sky", "road"], "ignored": [1]}', "1 is the number of a class and ignored"),
        ('{"classes": ["sky", "road"], "palette": [[1, 2]]}', "wanted red, green and blue"),
        ('{"classes": ["sky"]}', "1 classes; wanted 2 to 255"),
        ('{"classes": []}', "0 classes"),
    ],
)
def test_a_wrong_dataset_json_is_explained_with_an_example(tmp_path: Path, note: str | None, said: str):
    root = folder(tmp_path)
    (root / "dataset.json").unlink() if note is None else (root / "dataset.json").write_text(note)
    with pytest.raises(DataError, match=said) as caught:
        read_splits("segmentation_folder", Roots(root))
    assert "dataset.json" in str(caught.value) and '{"classes": ["sky", "road"]' in str(caught.value)


def test_a_broken_ade20k_says_what_is_missing_and_shows_the_layout(tmp_path: Path):
    shutil.rmtree(ade(tmp_path) / "ADEChallengeData2016" / "annotations" / "validation")
    with pytest.raises(DataError, match="no 'annotations/validation' here") as caught:
        read_splits("ade20k", Roots(tmp_path))
    assert "expected layout of ade20k" in str(caught.value)


def test_an_image_without_its_mask_is_named(tmp_path: Path):
    mask = folder(tmp_path) / "annotations" / "train" / "train1.png"
    mask.unlink()
    with pytest.raises(DataError, match=f"{mask}: no such file .1 of 3 images have no truth") as caught:
        read_splits("segmentation_folder", Roots(tmp_path))
    assert "expected layout of segmentation_folder" in str(caught.value)


def test_a_line_without_depth_is_refused(tmp_path: Path):
    nyu(tmp_path)
    with (tmp_path / "nyu_test.txt").open("a") as lines:
        lines.write("/bathroom/rgb_00009.jpg None 518.8579\n")
    with pytest.raises(DataError, match=r"/bathroom/rgb_00009\.jpg has no depth"):
        read_splits("nyud", Roots(tmp_path), allow_count_mismatch=True)


def test_of_a_part_of_a_set_only_whole_pairs_are_taken(tmp_path: Path):
    next((ade(tmp_path) / "ADEChallengeData2016" / "annotations" / "training").iterdir()).unlink()
    splits = read_splits("ade20k", Roots(tmp_path), allow_count_mismatch=True)
    assert splits.train is not None and len(splits.train) == len(splits.train.maps or ()) == 2
    assert all(Path(mask).is_file() for mask in splits.train.maps or ())


def test_the_hash_of_a_split_is_that_of_its_files_and_rules_wherever_they_lie(tmp_path: Path):
    first, second = folder(tmp_path / "a"), folder(tmp_path / "b")

    def identity(root: Path) -> str:
        return read_splits("segmentation_folder", Roots(root)).identity()

    assert identity(first) == identity(second)
    (second / "annotations" / "val" / "val0.png").write_bytes(b"other")
    assert identity(first) != identity(second)
    third = folder(tmp_path / "c", {"classes": ["sky", "street"], "ignored": [11]})
    assert identity(first) != identity(third)


@pytest.mark.parametrize(("name", "build"), [("ade20k", ade), ("segmentation_folder", folder), ("nyud", nyu)])
def test_check_looks_at_images_and_their_truth(tmp_path: Path, name: str, build):
    build(tmp_path)
    parts = check_dataset(name, Roots(tmp_path), allow_count_mismatch=True)
    assert [part.images for part in parts] == [len(read_split(DATASETS[name], tmp_path, s, allow_count_mismatch=True))
                                               for s in DATASETS[name].splits]  # fmt: skip
    assert all(part.decoded == part.images for part in parts)


def test_check_finds_a_mask_with_an_unknown_number(tmp_path: Path):
    folder(tmp_path)
    path = save(tmp_path / "annotations" / "val" / "val2.png", np.full((4, 6), 9, np.uint8))
    with pytest.raises(DataError, match=f"{path}: the number 9"):
        check_dataset("segmentation_folder", Roots(tmp_path))


def test_check_finds_an_image_that_the_list_names_and_nobody_has(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    counts = {"train": 4, "test": 2}
    monkeypatch.setitem(DATASETS._entries, "nyud", dataclasses.replace(DATASETS["nyud"], counts=counts))
    gone = nyu(tmp_path) / "kitchen_0028b" / "rgb_00001.jpg"
    gone.unlink()
    with pytest.raises(DataError, match=f"1 of 4 images are not there, first {gone}"):
        check_dataset("nyud", Roots(tmp_path), samples=0)
