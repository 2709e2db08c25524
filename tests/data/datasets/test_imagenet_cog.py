import pickle
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from miniatures import read

from unic.core.errors import DataError
from unic.data.datasets import DATASETS
from unic.data.datasets.imagenet_cog import LEVELS_FILE, SPLIT_FILE

# Level 2 holds two classes, not in order; the others one each.
LEVELS = [["n1"], ["n9", "n2"], ["n3"], ["n4"], ["n5"]]
NAMES = {"train": ["_7.JPEG", "_10.JPEG"], "test": ["_3.JPEG"]}


def pickles(root: Path, *, dtype: Any = "<U40", protocol: int = 4) -> Path:
    split = {
        wnid: {
            key: np.array([f"{wnid}/{wnid}{n}" for n in names], dtype=dtype) for key, names in NAMES.items()
        }
        for level in LEVELS
        for wnid in level
    }
    for file, content in ((LEVELS_FILE, LEVELS), (SPLIT_FILE, split)):
        (root / file).write_bytes(pickle.dumps(content, protocol=protocol))
    return root


@pytest.mark.parametrize("dtype", ["<U40", object])
@pytest.mark.parametrize("protocol", [2, 4, 5])
def test_classes_of_a_level_and_their_files_are_sorted(dtype: Any, protocol: int, tmp_path: Path):
    pickles(tmp_path, dtype=dtype, protocol=protocol)
    assert read("cog_l2", tmp_path, "trainval") == [
        *(("n2/n2_10.JPEG", 0), ("n2/n2_7.JPEG", 0)),
        *(("n9/n9_10.JPEG", 1), ("n9/n9_7.JPEG", 1)),
    ]
    assert read("cog_l2", tmp_path, "test") == [("n2/n2_3.JPEG", 0), ("n9/n9_3.JPEG", 1)]
    assert read("cog_l5", tmp_path, "test") == [("n5/n5_3.JPEG", 0)]
    assert DATASETS["cog_l2"].read(tmp_path, "test").classes == ("n2", "n9")


def test_files_written_with_numpy_1_are_read(tmp_path: Path):
    pickles(tmp_path, protocol=2)
    old = (tmp_path / SPLIT_FILE).read_bytes().replace(b"cnumpy._core.", b"cnumpy.core.")
    assert b"numpy.core." in old and b"numpy._core." not in old
    (tmp_path / SPLIT_FILE).write_bytes(old)
    assert read("cog_l1", tmp_path, "test") == [("n1/n1_3.JPEG", 0)]


class Harmful:
    def __init__(self, file: Path):
        self.file = file

    def __reduce__(self):
        return Path.touch, (self.file,)


def test_code_in_a_pickle_is_named_and_not_run(tmp_path: Path):
    pickles(tmp_path)
    (tmp_path / SPLIT_FILE).write_bytes(pickle.dumps({"n1": Harmful(tmp_path / "harm")}))
    with pytest.raises(DataError, match=f"{SPLIT_FILE}: .*names .*getattr|{SPLIT_FILE}: .*names pathlib"):
        DATASETS["cog_l1"].read(tmp_path, "test")
    assert not (tmp_path / "harm").exists()


def test_what_is_missing_is_named(tmp_path: Path):
    pickles(tmp_path)
    (tmp_path / SPLIT_FILE).write_bytes(pickle.dumps({"n1": {"train": ["a"]}}))
    with pytest.raises(DataError, match=f"{SPLIT_FILE}: no files of 'test' for 'test'"):
        DATASETS["cog_l1"].read(tmp_path, "test")
    (tmp_path / LEVELS_FILE).write_bytes(pickle.dumps([["n1"]]))
    with pytest.raises(DataError, match=f"{LEVELS_FILE}: wanted a list of 5 lists"):
        DATASETS["cog_l1"].read(tmp_path, "test")
    (tmp_path / LEVELS_FILE).write_bytes(b"")
    with pytest.raises(DataError, match=f"{LEVELS_FILE}: no readable pickle"):
        DATASETS["cog_l1"].read(tmp_path, "test")
    (tmp_path / LEVELS_FILE).unlink()
    with pytest.raises(DataError, match=f"no '{LEVELS_FILE}' here"):
        DATASETS["cog_l1"].read(tmp_path, "test")
