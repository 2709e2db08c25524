from pathlib import Path

import numpy as np
import pytest

from unic.core.errors import DataError
from unic.data.datasets import DATASETS
from unic.data.datasets.digits import write_digits
from unic.data.decode import read_image
from unic.data.labeled_images import ImageList


@pytest.fixture(scope="module")
def digits(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("sets") / "digits"
    write_digits(root)
    return root


def pixels(images: ImageList) -> np.ndarray:
    return np.stack([np.asarray(read_image(path))[..., 0].ravel() for path in images.paths]).astype(
        np.float32
    )


@pytest.mark.parametrize("name", list(DATASETS))
def test_every_data_set_describes_itself_and_misses_its_folder_politely(name: str, tmp_path: Path):
    spec = DATASETS[name]
    assert spec.name == name
    assert spec.layout and spec.source
    with pytest.raises(DataError, match="missing"):
        spec.read(tmp_path / "missing", spec.splits[0])


# What the papers of the data sets say of all images together.
TOTALS = {
    "aircraft": 10_000, "cars196": 16_185, "dtd": 47 * 120, "eurosat": 27_000, "flowers": 8_189, "food101": 101_000,
    "sun397": 397 * 100, "inat2019": 268_243, "in1k": 1_331_167,
}  # fmt: skip


def test_published_counts_are_given_for_both_parts_or_for_none():
    for name in DATASETS:
        spec = DATASETS[name]
        assert not spec.counts or set(spec.splits) <= set(spec.counts)
        assert len(spec.splits) == (1 if spec.train_set else 2)
        if name in TOTALS:
            assert sum(spec.counts[split] for split in spec.splits) == TOTALS[name]


def test_digits_have_their_published_counts_and_a_balanced_test_part(digits: Path):
    train, test = (DATASETS["digits"].read(digits, split) for split in ("train", "test"))
    assert (len(train), len(test)) == (1297, 500)
    assert train.classes == test.classes == tuple("0123456789")
    assert test.labels is not None
    assert np.bincount(test.labels).tolist() == [50] * 10


def test_digits_on_disk_are_still_digits(digits: Path):
    train, test = (DATASETS["digits"].read(digits, split) for split in ("train", "test"))
    x, y = pixels(train), pixels(test)
    nearest = ((y**2).sum(1)[:, None] - 2 * y @ x.T + (x**2).sum(1)).argmin(1)
    assert train.labels is not None
    assert (
        train.labels[nearest] == test.labels
    ).mean() > 0.95  # nearest neighbour on pixels: 96 % as measured


def test_digits_are_not_written_twice(digits: Path):
    (digits / "train/0/0000.png").touch()
    before = (digits / "train/0/0000.png").stat().st_mtime_ns
    write_digits(digits)
    assert (digits / "train/0/0000.png").stat().st_mtime_ns == before
    assert [path.name for path in digits.parent.iterdir()] == ["digits"]


@pytest.mark.parametrize("folders", [("test",), ("val",), ("validation",), ("val", "test")])
def test_the_part_to_score_on_may_have_other_names(folders: tuple[str, ...], tmp_path: Path):
    for folder in folders:
        (tmp_path / folder / "cat").mkdir(parents=True)
        (tmp_path / folder / "cat" / "1.png").touch()
    (path,) = DATASETS["image_folder"].read(tmp_path, "test").paths
    assert path == str(tmp_path / folders[-1] / "cat" / "1.png")
