"""Which images are looked at, and what becomes of bad ones."""

from pathlib import Path

import pytest
import torch
from doctor_images import photographs

from unic.core.errors import ConfigError, DataError
from unic.data.crop import evaluation_view
from unic.data.decode import read_image
from unic.tools.doctor.sample_images import read_sample_images, spread


@pytest.mark.parametrize(("count", "most"), [(10, 10), (3, 500), (1000, 7), (1, 1), (101, 100)])
def test_the_spread_reaches_over_the_whole_folder_at_equal_distances(count: int, most: int):
    chosen = spread(count, most).tolist()
    assert len(chosen) == min(count, most)
    assert chosen[0] == 0
    steps = [b - a for a, b in zip(chosen, [*chosen[1:], count], strict=True)]
    assert max(steps) - min(steps) <= 1 <= min(steps)


def test_views_are_the_evaluation_views_of_the_chosen_images_in_each_size(tmp_path: Path):
    photographs(tmp_path, 9)
    pictures = read_sample_images(tmp_path, [16, 24, 16], 3, batch_size=2)
    assert [Path(path).name for path in pictures.paths] == ["0000.png", "0003.png", "0006.png"]
    for size in (16, 24):
        for path, view in zip(pictures.paths, pictures.views[size], strict=True):
            torch.testing.assert_close(view, evaluation_view(read_image(path), size), rtol=0, atol=0)


def test_a_bad_image_is_named_and_left_out(tmp_path: Path):
    photographs(tmp_path, 5)
    (tmp_path / "0002.png").write_bytes(b"no picture")
    pictures = read_sample_images(tmp_path, [16], 500, batch_size=2)
    assert pictures.unreadable == [str(tmp_path / "0002.png")]
    assert len(pictures) == len(pictures.views[16]) == 4
    assert pictures.index.tolist() == [0, 1, 3, 4]


def test_a_folder_of_bad_images_alone_is_an_error(tmp_path: Path):
    (tmp_path / "a.png").write_bytes(b"no picture")
    with pytest.raises(DataError, match=r"none of the 1 images looked at can be read, such as .*a\.png"):
        read_sample_images(tmp_path, [16], 500, batch_size=2)
    with pytest.raises(ConfigError, match="at least 1"):
        read_sample_images(tmp_path, [16], 0, batch_size=2)
