import hashlib
import random
from pathlib import Path

import pytest
from miniatures import read, touch

from unic.core.errors import DataError
from unic.data.datasets import DATASETS
from unic.data.datasets.eurosat import CLASSES, parts

# The published number of images of each class: 27,000 together.
SIZES = dict(zip(CLASSES, (3000, 3000, 3000, 2500, 2500, 2000, 2500, 3000, 2500, 3000), strict=True))


def all_parts() -> dict[str, list[str]]:
    found: dict[str, list[str]] = {"train": [], "val": [], "test": []}
    for name, size in SIZES.items():
        for part, files in parts(f"{name}/{name}_{i}.jpg" for i in range(1, size + 1)).items():
            found[part] += files
    return found


def test_the_split_of_the_whole_set_is_the_one_that_results_were_made_with():
    found = all_parts()
    assert {part: len(files) for part, files in found.items()} == {
        "train": 13_500,
        "val": 5_400,
        "test": 8_100,
    }
    digests = {
        part: hashlib.sha256("\n".join(files).encode()).hexdigest()[:16] for part, files in found.items()
    }
    assert digests == {"train": "ac75cf84c05f991c", "val": "4bf8879928a14cad", "test": "471eefa66850da73"}


def test_the_counts_of_the_specification_are_those_of_the_split():
    found = {part: len(files) for part, files in all_parts().items()}
    assert dict(DATASETS["eurosat"].counts) == {**found, "trainval": found["train"] + found["val"]}


def test_each_image_is_in_one_part_and_parts_look_shuffled():
    names = [f"River/River_{i}.jpg" for i in range(1, 2501)]
    found = parts(names)
    assert sorted(name for files in found.values() for name in files) == sorted(names)
    assert len(found["test"]) == 810 and len(found["val"]) == 540
    # 270 of each 833 numbers are expected, with a standard deviation of 12.
    low = sum(int(name.split("_")[1][:-4]) <= 833 for name in found["test"])
    assert abs(low - 270) < 50


def test_the_order_in_which_files_are_found_changes_nothing():
    names = [f"River/River_{i}.jpg" for i in range(100)]
    shuffled = random.Random(1).sample(names, len(names))
    assert parts(names) == parts(shuffled)
    assert parts(names) != parts(name.replace("River", "Forest") for name in names)


@pytest.mark.parametrize("place", ["", "2750", "eurosat/2750"])
def test_the_reader_divides_each_class(place: str, tmp_path: Path):
    names = [f"{name}/{name}_{i}.jpg" for name in ("AnnualCrop", "SeaLake") for i in range(1, 9)]
    touch(tmp_path / place, names)
    found = {split: read("eurosat", tmp_path, split) for split in ("train", "val", "trainval", "test")}
    assert [len(found[split]) for split in found] == [4, 4, 8, 8]
    assert found["trainval"] == found["train"] + found["val"]
    assert not set(found["trainval"]) & set(found["test"])
    everything = {(f"{place}/{name}".lstrip("/"), 9 if "SeaLake" in name else 0) for name in names}
    assert {*found["trainval"], *found["test"]} == everything


def test_a_folder_that_is_no_class_is_named(tmp_path: Path):
    touch(tmp_path, ["River/River_1.jpg", "Lake/Lake_1.jpg"])
    with pytest.raises(
        DataError, match="'Lake' is no class of eurosat; wanted folders of classes such as AnnualCrop"
    ):
        DATASETS["eurosat"].read(tmp_path, "test")
