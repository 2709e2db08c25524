"""Colours of patches: own ones, shared ones, and those of a foreground."""

import re

import torch
from tiny import random_maps, seen

from unic.tools.visualize.pca import CONSTANT, in_own_colours, in_shared_colours, threshold


def rotated(maps: torch.Tensor, width: int, seed: int = 3) -> torch.Tensor:
    """The same content in a space of another width: lengths and angles between patches stay."""
    matrix = torch.linalg.qr(
        torch.randn(width, maps.shape[1], generator=torch.Generator().manual_seed(seed))
    )[0]
    return torch.einsum("de,behw->bdhw", matrix, maps)


def near(remark: str) -> float:
    return float(re.findall(r"-?\d\.\d+", remark)[0])


def test_two_runs_give_the_same_bytes():
    first, second = (in_own_colours(seen(random_maps(16))).pixels for _ in range(2))
    assert first is not None and second is not None and first.equal(second)
    assert first.shape == (2, 6, 6, 3)


def test_the_same_features_in_another_space_have_the_same_colours_when_they_are_shared():
    maps = random_maps(16)
    first, second = in_shared_colours([seen(maps, "a"), seen(7.0 * rotated(maps, 30) - 2.0, "b")])
    assert first.pixels is not None and second.pixels is not None
    assert (first.pixels.int() - second.pixels.int()).abs().max() <= 2  # of 255; float32 features
    assert near(second.remark) == 1.0 and second.remark.endswith("b") is False


def test_the_first_encoder_keeps_its_own_colours():
    maps = random_maps(16)
    shared, _ = in_shared_colours([seen(maps), seen(random_maps(9, seed=5))])
    own = in_own_colours(seen(maps))
    assert shared.pixels is not None and own.pixels is not None and shared.pixels.equal(own.pixels)


def test_maps_of_another_grid_keep_it_and_are_compared_on_the_first_ones():
    maps = torch.nn.functional.interpolate(random_maps(16, side=4), (16, 16), mode="bicubic")
    coarse = torch.nn.functional.interpolate(rotated(maps, 20), (8, 8), mode="bilinear", antialias=True)
    _, second = in_shared_colours([seen(maps), seen(coarse)])
    assert second.pixels is not None and second.pixels.shape == (2, 8, 8, 3)
    assert near(second.remark) > 0.95


def test_with_few_patches_unlike_encoders_are_not_turned_into_one_another():
    _, second = in_shared_colours([seen(random_maps(16, side=3)), seen(random_maps(16, side=3, seed=9))])
    assert near(second.remark) < 0.75


def test_a_head_is_looked_at_along_the_components_of_its_teacher():
    maps = random_maps(16)
    mean = maps.mean((0, 2, 3), keepdim=True)
    head = mean + 0.25 * (maps - mean)  # says the same, more quietly
    teacher, student = in_shared_colours([seen(maps, "t", "t"), seen(head, "s@t", "t")])
    assert teacher.pixels is not None and student.pixels is not None
    assert (teacher.pixels.int() - student.pixels.int()).abs().max() <= 2
    assert student.remark == "r = 1.00, spread 0.25 of t"
    _, mirrored = in_shared_colours([seen(maps, "t", "t"), seen(2 * mean - head, "s@t", "t")])
    assert near(mirrored.remark) == -1.0  # which a rotation would have hidden


def test_constant_features_are_said_to_be_so():
    constant = torch.ones(2, 8, 6, 6)
    assert in_own_colours(seen(constant)).remark == CONSTANT
    assert in_own_colours(seen(constant), foreground=True).pixels is None
    found = in_shared_colours([seen(constant), seen(random_maps(16), "b"), seen(random_maps(9), "c")])
    assert [coloured.pixels is None for coloured in found] == [True, False, False]
    assert found[2].remark.endswith("with b")
    assert all(coloured.pixels is None for coloured in in_shared_colours([seen(constant), seen(constant)]))


def test_the_foreground_is_what_the_border_lacks_whatever_its_sign():
    object_ = torch.zeros(8, 8, dtype=torch.bool)
    object_[2:6, 3:6] = True
    for sign in (1.0, -1.0):
        maps = 0.1 * random_maps(16, side=8, images=1)
        maps[0, 0] += 20.0 * sign * object_
        pixels = in_own_colours(seen(maps), foreground=True).pixels
        assert pixels is not None
        assert (pixels[0].any(-1) == object_).sum() >= 63  # a patch of the object may itself be black


def test_two_groups_are_told_apart_between_them():
    values = torch.cat([torch.linspace(0, 1, 30), torch.linspace(4, 5, 10)]).double()
    assert 1 < threshold(values) < 4
