"""Similarities to one patch, against brute force."""

import math

import pytest
import torch
from tiny import random_maps

from unic.core.errors import ConfigError
from unic.tools.visualize.options import read_patch
from unic.tools.visualize.picture_tables import similarities


@pytest.mark.parametrize(
    ("patch", "row", "column"), [((0.0, 0.0), 0, 0), ((1.0, 0.3), 1, 5), ((0.5, 0.5), 3, 3)]
)
def test_similarities_are_cosines_to_the_patch_that_holds_the_place(patch: tuple, row: int, column: int):
    maps = random_maps(7)
    found = similarities(maps, patch)
    for image in range(2):
        for y in range(6):
            for x in range(6):
                a, b = maps[image, :, y, x].tolist(), maps[image, :, row, column].tolist()
                dot = sum(p * q for p, q in zip(a, b, strict=True))
                cosine = dot / math.sqrt(sum(p * p for p in a) * sum(q * q for q in b))
                assert abs(float(found[image, y, x]) - cosine) < 1e-9
    torch.testing.assert_close(found[:, row, column], torch.ones(2, dtype=torch.float64))


def test_a_patch_of_zeros_is_like_nothing():
    maps = random_maps(7)
    maps[:, :, 0, 0] = 0
    assert (similarities(maps, (0.0, 0.0)) == 0).all()


@pytest.mark.parametrize("text", ["1.2,0", "-0.1,0.5", "0.5", "a,b", "nan,0", "0.1,0.2,0.3", ""])
def test_a_place_outside_the_picture_is_a_sentence(text: str):
    with pytest.raises(ConfigError, match="X,Y from 0,0"):
        read_patch(text)


def test_a_place_is_two_shares():
    assert read_patch("0.25, 1") == (0.25, 1.0)
