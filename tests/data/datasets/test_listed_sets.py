"""The sets whose files list their images: what is read, compared by hand and with torchvision's readers."""

import shutil
from collections.abc import Callable
from pathlib import Path

import miniatures
import numpy as np
import pytest
import torchvision.datasets as tv
from miniatures import read
from scipy.io import savemat

from unic.core.errors import DataError
from unic.data.datasets import DATASETS, read_split

# name: (writer, places where the same files may lie, what is expected of trainval, of test)
EXPECTED = {
    "aircraft": (
        miniatures.aircraft,
        ("", "fgvc-aircraft-2013b"),
        [("data/images/0000003.jpg", 2), ("data/images/0000001.jpg", 0), ("data/images/0000005.jpg", 1)],
        [("data/images/0000002.jpg", 2), ("data/images/0000004.jpg", 0)],
    ),
    "dtd": (
        miniatures.dtd,
        ("", "dtd", "dtd/dtd"),
        [
            *(("images/woven/woven_1.jpg", 1), ("images/banded/banded_2.jpg", 0)),
            *(("images/banded/banded_0.jpg", 0), ("images/woven/woven_0.jpg", 1)),
        ],
        [("images/banded/banded_1.jpg", 0), ("images/woven/woven_2.jpg", 1)],
    ),
    "flowers": (
        miniatures.flowers,
        ("", "flowers-102"),
        [
            *(("jpg/image_00004.jpg", 101), ("jpg/image_00001.jpg", 4)),
            *(("jpg/image_00002.jpg", 4), ("jpg/image_00005.jpg", 101)),
        ],
        [("jpg/image_00006.jpg", 101), ("jpg/image_00003.jpg", 4)],
    ),
    "pets": (
        miniatures.pets,
        ("", "oxford-iiit-pet"),
        [("images/Abyssinian_1.jpg", 0), ("images/great_pyrenees_10.jpg", 15)],
        [("images/great_pyrenees_2.jpg", 15)],
    ),
    "food101": (
        miniatures.food101,
        ("", "food-101"),
        [("images/waffles/2.jpg", 1), ("images/apple_pie/10.jpg", 0)],
        [("images/waffles/1.jpg", 1), ("images/apple_pie/9.jpg", 0)],
    ),
    "sun397": (
        miniatures.sun397,
        ("",),
        [("SUN397/a/apartment_building/outdoor/sun_2.jpg", 1), ("SUN397/a/abbey/sun_1.jpg", 0)],
        [("SUN397/a/abbey/sun_3.jpg", 0), ("SUN397/a/apartment_building/outdoor/sun_4.jpg", 1)],
    ),
    "cars196": (
        miniatures.cars_parts,
        ("", "stanford_cars"),
        [("cars_train/00001.jpg", 13), ("cars_train/00002.jpg", 2)],
        [("cars_test/00001.jpg", 180), ("cars_test/00002.jpg", 2)],
    ),
}
PLACES = [(name, place) for name, (_, places, *_) in EXPECTED.items() for place in places]


@pytest.mark.parametrize(("name", "place"), PLACES)
def test_paths_and_labels_are_those_of_the_lists_wherever_the_files_lie(
    name: str, place: str, tmp_path: Path
):
    writer, _, trainval, test = EXPECTED[name]
    (tmp_path / place).mkdir(parents=True, exist_ok=True)
    base = writer(tmp_path / place)
    for split, expected in (("trainval", trainval), ("test", test)):
        found = read(name, tmp_path, split)
        assert found == [(f"{place}/{path}".lstrip("/"), label) for path, label in expected]
        assert all((tmp_path / path).is_file() for path, _ in found)
    a, b = (DATASETS[name].read(root, "test") for root in (tmp_path, base))
    assert a.identity() == b.identity()  # the same data, whichever folder was named


def test_a_data_set_elsewhere_is_still_itself(tmp_path: Path):
    miniatures.dtd(tmp_path / "here")
    shutil.copytree(tmp_path / "here", tmp_path / "there/dtd")
    here, there = (DATASETS["dtd"].read(tmp_path / name, "test") for name in ("here", "there"))
    assert here.identity() == there.identity()


# torchvision's reader of each layout that it knows, with the parts that make trainval, and its private list of files.
TORCHVISION: dict[str, tuple[str, Callable[[Path, str], tv.VisionDataset], tuple[str, ...], str]] = {
    "aircraft": ("fgvc-aircraft-2013b", tv.FGVCAircraft, ("trainval",), "_image_files"),
    "cars196": ("stanford_cars", tv.StanfordCars, ("train",), "_samples"),
    "dtd": ("dtd/dtd", tv.DTD, ("train", "val"), "_image_files"),
    "flowers": ("flowers-102", tv.Flowers102, ("train", "val"), "_image_files"),
    "pets": ("oxford-iiit-pet", tv.OxfordIIITPet, ("trainval",), "_images"),
    "food101": ("food-101", tv.Food101, ("train",), "_image_files"),
}


@pytest.mark.parametrize("name", TORCHVISION)
@pytest.mark.parametrize("split", ["trainval", "test"])
def test_torchvision_reads_the_same(name: str, split: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    place, reader, trainval, files = TORCHVISION[name]
    (tmp_path / place).mkdir(parents=True)
    EXPECTED[name][0](tmp_path / place)
    monkeypatch.setattr(
        tv.Flowers102, "_check_integrity", lambda self: True
    )  # its files are not the real ones
    expected = []
    for part in trainval if split == "trainval" else ("test",):
        theirs = reader(tmp_path, part)
        paths = getattr(theirs, files)
        labels = [label for _, label in paths] if files == "_samples" else theirs._labels  # pyright: ignore[reportAttributeAccessIssue]
        paths = [path for path, _ in paths] if files == "_samples" else paths
        expected += [
            (str(Path(path).relative_to(tmp_path)), int(y)) for path, y in zip(paths, labels, strict=True)
        ]
    assert sorted(read(name, tmp_path, split)) == sorted(expected)


def test_cars_in_one_folder_are_divided_by_their_flag(tmp_path: Path):
    miniatures.cars_together(tmp_path)
    assert read("cars196", tmp_path, "trainval") == [("car_ims/000001.jpg", 1), ("car_ims/000003.jpg", 195)]
    assert read("cars196", tmp_path, "test") == [("car_ims/000002.jpg", 0), ("car_ims/000004.jpg", 1)]


def test_names_of_cars_are_read_where_there_is_a_file_of_them(tmp_path: Path):
    miniatures.cars_together(tmp_path)
    assert (DATASETS["cars196"].read(tmp_path, "test").classes or ())[::195] == ("1", "196")
    miniatures.cars_meta(tmp_path)
    assert (DATASETS["cars196"].read(tmp_path, "test").classes or ())[::195] == ("Car 1", "Car 196")


def test_annotations_of_cars_without_classes_are_named(tmp_path: Path):
    """The devkit has a file of the test images that lacks their labels."""
    miniatures.cars_parts(tmp_path)
    rows = np.array([[(1, "00001.jpg"), (2, "00002.jpg")]], dtype=[("bbox_x1", object), ("fname", object)])
    savemat(tmp_path / "cars_test_annos_withlabels.mat", {"annotations": rows})
    with pytest.raises(DataError, match=r"withlabels.mat: wanted the file and the class of each image"):
        DATASETS["cars196"].read(tmp_path, "test")
    (tmp_path / "cars_annos.mat").touch()  # half of the other layout
    with pytest.raises(DataError, match="no 'car_ims' here"):
        DATASETS["cars196"].read(tmp_path, "test")


def test_classes_have_names(tmp_path: Path):
    expected = {
        "aircraft": {0: "707-320", 2: "A300 B4"},
        "flowers": {0: "pink primrose", 101: "blackberry lily"},
        "pets": {0: "Abyssinian", 15: "great_pyrenees", 36: "37"},  # nothing names a breed without images
        "sun397": {1: "/a/apartment_building/outdoor"},
    }
    for name, names in expected.items():
        (tmp_path / name).mkdir()
        classes = DATASETS[name].read(EXPECTED[name][0](tmp_path / name), "test").classes or ()
        assert {i: classes[i] for i in names} == names


@pytest.mark.parametrize(
    ("name", "file"),
    [
        *(("aircraft", "data/variants.txt"), ("aircraft", "data/images_variant_test.txt")),
        *(
            ("dtd", "labels/val1.txt"),
            ("dtd", "images"),
            ("flowers", "imagelabels.mat"),
            ("flowers", "setid.mat"),
        ),
        *(("pets", "annotations/test.txt"), ("food101", "meta/train.txt"), ("sun397", "ClassName.txt")),
        *(
            ("sun397", "Testing_01.txt"),
            ("cars196", "devkit/cars_train_annos.mat"),
            ("cars196", "cars_train"),
        ),
    ],
)
def test_a_missing_file_is_named(name: str, file: str, tmp_path: Path):
    EXPECTED[name][0](tmp_path)
    (tmp_path / file).rename(tmp_path / "elsewhere")
    with pytest.raises(DataError, match=f"no '{file}' here"):
        for split in ("trainval", "test"):
            DATASETS[name].read(tmp_path, split)


def test_the_nearest_layout_is_the_one_that_is_complained_of(tmp_path: Path):
    (tmp_path / "dtd/dtd").mkdir(parents=True)
    miniatures.dtd(tmp_path / "dtd/dtd")
    (tmp_path / "dtd/dtd/labels/val1.txt").unlink()
    with pytest.raises(DataError, match=r"/dtd/dtd: no 'labels/val1.txt' here"):
        DATASETS["dtd"].read(tmp_path, "test")


@pytest.mark.parametrize(
    ("name", "file", "content", "sentence"),
    [
        ("aircraft", "data/images_variant_test.txt", "0000002\n", "wanted 2 words"),
        (
            "aircraft",
            "data/images_variant_test.txt",
            "0000002 Zeppelin\n",
            "'Zeppelin' is none of the 3 classes",
        ),
        ("aircraft", "data/images_variant_test.txt", "\n", "lists no image"),
        ("pets", "annotations/test.txt", "cat_1 38 1 1\n", "'38' is none of the 37 classes"),
        ("sun397", "Testing_01.txt", "/z/zoo/sun_9.jpg\n", "'/z/zoo' is none of the 2 classes"),
        ("flowers", "setid.mat", "no matrix", "no readable MATLAB file"),
    ],
)
def test_wrong_lines_and_labels_are_named_with_their_file(
    name: str, file: str, content: str, sentence: str, tmp_path: Path
):
    EXPECTED[name][0](tmp_path)
    (tmp_path / file).write_text(content)
    with pytest.raises(DataError, match=sentence) as error:
        DATASETS[name].read(tmp_path, "test")
    assert file in str(error.value)


def test_missing_and_impossible_labels_of_flowers_are_named(tmp_path: Path):
    miniatures.flowers(tmp_path)
    savemat(tmp_path / "imagelabels.mat", {"labels": np.array([[5, 5]])})
    with pytest.raises(
        DataError, match=r"setid.mat: images 3 to 6, but .*imagelabels.mat has labels of 1 to 2"
    ):
        DATASETS["flowers"].read(tmp_path, "test")
    savemat(tmp_path / "imagelabels.mat", {"labels": np.array([[5, 5, 0, 5, 5, 103]])})
    with pytest.raises(DataError, match=r"imagelabels.mat: .*image_00006.jpg has label 102; wanted 0 to 101"):
        DATASETS["flowers"].read(tmp_path, "test")
    savemat(tmp_path / "imagelabels.mat", {"answers": np.array([[5, 5]])})
    with pytest.raises(DataError, match=r"imagelabels.mat: holds no 'labels'"):
        DATASETS["flowers"].read(tmp_path, "test")


def test_the_published_counts_are_wanted_unless_a_part_is_asked_for(tmp_path: Path):
    miniatures.food101(tmp_path)
    spec = DATASETS["food101"]
    sentence = r"food101, trainval: 2 images in .*, expected 75750; .* --allow-count-mismatch"
    with pytest.raises(DataError, match=sentence):
        read_split(spec, tmp_path, "trainval")
    assert len(read_split(spec, tmp_path, "trainval", allow_count_mismatch=True)) == 2
    (tmp_path / "images/apple_pie/10.jpg").unlink()
    (path,) = read_split(spec, tmp_path, "trainval", allow_count_mismatch=True).paths
    assert path.endswith("waffles/2.jpg")
    (tmp_path / "images/waffles/2.jpg").unlink()
    with pytest.raises(DataError, match="none of the 2 images of food101 is here"):
        read_split(spec, tmp_path, "trainval", allow_count_mismatch=True)
    with pytest.raises(DataError, match="no part 'val'; known: trainval, test"):
        read_split(spec, tmp_path, "val")
