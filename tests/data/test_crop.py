import math
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image
from torchvision.transforms import v2

from unic.core.errors import ConfigError
from unic.data.config import ViewConfig
from unic.data.crop import crop_box, evaluation_view, geometric_draws, random_resized_crop, training_view

SIZES = st.tuples(st.integers(1, 400), st.integers(1, 400))


def noise(width: int, height: int) -> Image.Image:
    return Image.fromarray(np.random.default_rng(0).integers(0, 256, (height, width, 3), dtype=np.uint8))


def draws(num_images: int) -> list[list[float]]:
    return geometric_draws(0, torch.zeros(num_images, dtype=torch.int64), torch.arange(num_images)).tolist()


@settings(max_examples=60, deadline=None)
@given(size=SIZES, image_size=st.integers(1, 64))
def test_the_evaluation_view_is_torchvisions_resize_and_centre_crop(size: tuple[int, int], image_size: int):
    width, height = size
    if max(size) > 50 * min(size):
        return
    image = noise(width, height)
    oracle = v2.Compose(
        [v2.Resize(image_size, v2.InterpolationMode.BICUBIC), v2.CenterCrop(image_size), v2.PILToTensor()]
    )
    torch.testing.assert_close(evaluation_view(image, image_size), oracle(image), rtol=0, atol=0)


@pytest.mark.parametrize("size", [(65_500, 1), (1, 65_500), (65_500, 2), (1, 1), (3, 50_000)])
def test_extreme_shapes_give_views_without_extreme_memory(size: tuple[int, int]):
    image = Image.new("RGB", size, (9, 90, 200))
    expected = torch.tensor([9, 90, 200], dtype=torch.uint8)[:, None, None].expand(3, 32, 32)
    torch.testing.assert_close(evaluation_view(image, 32), expected)
    torch.testing.assert_close(training_view(image, 0, 0, 0, ViewConfig(image_size=32)), expected)


def test_a_training_view_is_torchvisions_resized_crop():
    image, cfg = noise(90, 70), ViewConfig(image_size=32)
    flipped = 0
    for row in draws(30):
        left, top, width, height = crop_box(90, 70, row[:-1], cfg)
        oracle = v2.functional.resized_crop(
            image, top, left, height, width, [32, 32], v2.InterpolationMode.BICUBIC, antialias=True
        )
        if row[-1] < 0.5:
            oracle, flipped = v2.functional.horizontal_flip(oracle), flipped + 1
        torch.testing.assert_close(
            random_resized_crop(image, row, cfg), v2.functional.pil_to_tensor(oracle), rtol=0, atol=0
        )
    assert 5 < flipped < 25


@settings(max_examples=100, deadline=None)
@given(size=SIZES, row=st.lists(st.floats(0, 1, exclude_max=True), min_size=22, max_size=22))
def test_a_crop_lies_inside_the_image(size: tuple[int, int], row: list[float]):
    left, top, width, height = crop_box(*size, row, ViewConfig())
    assert left >= 0 and top >= 0 and width >= 1 and height >= 1
    assert left + width <= size[0] and top + height <= size[1]


@settings(max_examples=60, deadline=None)
@given(size=SIZES, row=st.lists(st.floats(0, 1, exclude_max=True), min_size=22, max_size=22))
def test_a_crop_is_torchvisions_for_the_same_uniform_numbers(size: tuple[int, int], row: list[float]):
    width, height = size
    numbers, ends = iter(row[:20]), iter((row[21], row[20]))  # torchvision draws top first

    class FromNumbers(v2.RandomResizedCrop):
        """torchvision's own make_params, its calls of the random functions replaced."""

    def uniform(tensor: torch.Tensor, low: float, high: float) -> torch.Tensor:
        return torch.tensor([low + (high - low) * next(numbers)], dtype=torch.float64)

    def randint(low: int, high: int, size: tuple[int]) -> torch.Tensor:
        return torch.tensor([int(next(ends) * high)])

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(torch.Tensor, "uniform_", uniform)
        patch.setattr(torch, "randint", randint)
        oracle = FromNumbers(224).make_params([Image.new("RGB", size)])
    got = crop_box(width, height, row, ViewConfig())
    expected = (oracle["left"], oracle["top"], oracle["width"], oracle["height"])
    # torchvision computes log(ratio) in float32, so a side exactly between two pixels may fall either way.
    assert max(abs(a - b) for a, b in zip(got, expected, strict=True)) <= 1


def test_crops_are_distributed_as_torchvisions():
    torch.manual_seed(0)
    cfg, size = ViewConfig(), (300, 200)
    oracle = v2.RandomResizedCrop(224)
    image = Image.new("RGB", size)
    theirs = [oracle.make_params([image]) for _ in range(4000)]
    theirs = np.array([[p["left"], p["top"], p["width"], p["height"]] for p in theirs])
    ours = np.array([crop_box(*size, row[:-1], cfg) for row in draws(4000)])
    spread = theirs.std(0)
    for q in (0.1, 0.5, 0.9):
        difference = np.abs(np.quantile(ours, q, axis=0) - np.quantile(theirs, q, axis=0))
        # 4000 draws: a quantile's standard error is about 0.03 of the spread, so this is beyond 3 of them
        assert (difference < 0.12 * spread).all(), (q, difference / spread)


def test_a_view_is_a_function_of_seed_view_and_index():
    image, cfg = noise(60, 50), ViewConfig(image_size=16)
    first = training_view(image, 1, 2, 3, cfg)
    assert torch.equal(first, training_view(image, 1, 2, 3, cfg))
    for key in ((0, 2, 3), (1, 3, 3), (1, 2, 4)):
        assert not torch.equal(first, training_view(image, *key, cfg))


@pytest.mark.parametrize(
    "wrong",
    [
        {"image_size": 0},
        {"scale": (0.0, 1.0)},
        {"scale": (0.5, 0.1)},
        {"scale": (0.5, 1.5)},
        {"ratio": (-1.0, 1.0)},
        {"ratio": (2.0, 1.0)},
        {"flip": 1.5},
        {"flip": math.nan},
        {"jitter": (0.4, -0.1, 0.2, 0.1)},
        {"jitter": (0.4, 0.4, 0.2, 0.6)},
        {"jitter_prob": -0.1},
        {"grayscale_prob": 2.0},
        {"blur_kernel": 8},
        {"blur_kernel": 9, "image_size": 4},
        {"blur_sigma": (0.0, 1.0)},
        {"solarize_threshold": 128.0},
    ],
)
def test_impossible_settings_are_refused_by_name(wrong: dict[str, Any]):
    with pytest.raises(ConfigError, match=next(iter(wrong))):
        ViewConfig(**wrong)


def test_a_crop_can_touch_every_edge():
    """Literal boxes: 60 x 40 of an image of 100 x 80, where the draws say left or right, top or bottom."""
    cfg = ViewConfig(scale=(0.3, 0.3), ratio=(1.5, 1.5))  # 0.3 * 100 * 80 = 2,400 = 60 x 40
    almost_one = 1 - 2**-24  # the largest draw there is
    for left, top, wanted in (
        (0.0, 0.0, (0, 0, 60, 40)),
        (almost_one, 0.0, (40, 0, 60, 40)),
        (0.0, almost_one, (0, 40, 60, 40)),
        (almost_one, almost_one, (40, 40, 60, 40)),
        (0.5, 0.5, (20, 20, 60, 40)),
    ):
        assert crop_box(100, 80, [0.5] * 20 + [left, top], cfg) == wanted
