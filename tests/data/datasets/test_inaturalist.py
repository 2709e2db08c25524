import json
from pathlib import Path
from typing import Any

import pytest
from miniatures import read, touch

from unic.core.errors import DataError
from unic.data.datasets import DATASETS

CATEGORIES = [{"id": i, "name": f"Avis {i}", "supercategory": "Aves"} for i in (2, 0, 1)]


def write_json(root: Path, year: int = 2018, **changes: Any) -> Path:
    """Annotations in another order than the images, as nothing promises one."""
    for part, first in (("train", 10), ("val", 20)):
        images = [{"id": first + i, "file_name": f"train_val{year}/Aves/{first + i}.jpg"} for i in range(3)]
        annotations = [{"id": i, "image_id": first + 2 - i, "category_id": i} for i in range(3)]
        touch(root, [entry["file_name"] for entry in images])
        content = {"info": {}, "images": images, "annotations": annotations, "categories": CATEGORIES}
        (root / f"{part}{year}.json").write_text(json.dumps({**content, **changes}))
    return root


@pytest.mark.parametrize("year", [2018, 2019])
def test_an_image_has_the_category_of_the_annotation_that_names_it(year: int, tmp_path: Path):
    write_json(tmp_path, year)
    name = f"inat{year}"
    for split, first in (("trainval", 10), ("test", 20)):
        expected = [(f"train_val{year}/Aves/{first + i}.jpg", 2 - i) for i in range(3)]
        assert read(name, tmp_path, split) == expected
    assert DATASETS[name].read(tmp_path, "test").classes == ("Avis 0", "Avis 1", "Avis 2")


@pytest.mark.parametrize(
    ("changes", "sentence"),
    [
        (
            {"annotations": [{"image_id": 20, "category_id": 0}]},
            "3 images and 1 annotations, .*the first: 21",
        ),
        (
            {"annotations": [{"image_id": i // 2 + 20, "category_id": 0} for i in range(6)]},
            "3 images and 6 annot",
        ),
        ({"annotations": [{"category_id": 0}]}, "no usable 'image_id'"),
        ({"categories": CATEGORIES[:2]}, "not numbered from 0 to 1"),
        ({"categories": CATEGORIES[1:]}, r"22.jpg has label|20.jpg has label 2; wanted 0 to 1"),
    ],
)
def test_what_does_not_fit_together_is_named_with_the_file(changes: dict, sentence: str, tmp_path: Path):
    write_json(tmp_path, **changes)
    with pytest.raises(DataError, match=f"val2018.json: .*{sentence}"):
        DATASETS["inat2018"].read(tmp_path, "test")


def test_missing_and_damaged_files_are_named(tmp_path: Path):
    write_json(tmp_path)
    (tmp_path / "train2018.json").write_text('{"images": []}')
    with pytest.raises(DataError, match=r"train2018.json: holds no 'annotations'"):
        DATASETS["inat2018"].read(tmp_path, "trainval")
    (tmp_path / "train2018.json").write_text("images")
    with pytest.raises(DataError, match=r"train2018.json: no readable JSON file"):
        DATASETS["inat2018"].read(tmp_path, "trainval")
    (tmp_path / "train2018.json").unlink()
    with pytest.raises(DataError, match=r"no 'train2018.json' here"):
        DATASETS["inat2018"].read(tmp_path, "trainval")
