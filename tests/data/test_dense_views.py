"""Crops for dense tasks, against OpenCV (which the published pipelines call) and brute force, on given draws."""

import dataclasses
from functools import cache

import numpy as np
import pytest
import torch
from sklearn.datasets import load_sample_image
from torch import Tensor

from unic.core.errors import DataError
from unic.data.dense import depth_views, segmentation_views
from unic.data.dense.depth_views import Colour, DepthDraws
from unic.data.dense.read_annotations import IGNORED
from unic.data.dense.segmentation_views import SegmentationDraws

cv2 = pytest.importorskip("cv2")

NO_COLOURS = {"brightness": None, "contrast": None, "saturation": None, "hue": None}
PLAIN = SegmentationDraws(
    ratio=1.0, corners=((0.5, 0.5),) * 11, flips=False, contrast_first=False, **NO_COLOURS
)
STILL = DepthDraws(angle=None, flips=False, corner=(0.0, 0.0), colour=None)


@cache
def photo(width: int = 640, height: int = 416) -> np.ndarray:
    """(H, W, 3), RGB; scikit-learn's photograph of a temple."""
    return cv2.resize(load_sample_image("china.jpg"), (width, height), interpolation=cv2.INTER_AREA)


def tensor(image: np.ndarray) -> Tensor:
    return torch.from_numpy(image).permute(2, 0, 1)


def array(image: Tensor) -> np.ndarray:
    return image.permute(1, 2, 0).numpy()


def levels_apart(image: Tensor, expected: np.ndarray) -> np.ndarray:
    return np.abs(array(image).astype(int) - expected)


def noise(height: int, width: int, *, classes: int = 7, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, classes, (height, width)).astype(np.uint8)


def every_colour() -> np.ndarray:
    """Each eighth level of each channel and its neighbours, with both ends: 96 ** 3 colours, greys among them."""
    levels = [value for i in range(0, 256, 8) for value in (i, i + 1, i + 7)]
    return (
        np.stack(np.meshgrid(levels, levels, levels, indexing="ij"), -1).astype(np.uint8).reshape(96, -1, 3)
    )


def crop(
    image: np.ndarray, mask: np.ndarray, draws: SegmentationDraws, *, size: int
) -> tuple[Tensor, Tensor]:
    """The training view of an image (H, W, 3) and its mask (H, W)."""
    return segmentation_views.training_view(tensor(image), torch.from_numpy(mask), draws, size=size)


def black(height: int, width: int) -> np.ndarray:
    return np.zeros((height, width, 3), np.uint8)


@cache
def many_segmentation_draws() -> list[SegmentationDraws]:
    return [segmentation_views.draw(np.random.default_rng(seed)) for seed in range(2000)]


@cache
def many_depth_draws() -> list[DepthDraws]:
    return [depth_views.draw(np.random.default_rng(seed)) for seed in range(2000)]


# --- segmentation: geometry


@pytest.mark.parametrize("size", [97, 300, 416, 555])
def test_a_test_image_is_what_opencv_resizes_to_the_shorter_side(size: int):
    ours = segmentation_views.testing_view(tensor(photo()), size=size)
    assert ours.shape[1:] == (size, int(640 * size / 416 + 0.5))
    expected = cv2.resize(photo(), (ours.shape[2], size), interpolation=cv2.INTER_LINEAR)
    # Both compute with whole numbers, with other numbers of bits.
    assert levels_apart(ours, expected).max() <= 1


@pytest.mark.parametrize("ratio", [0.5, 0.77, 1.0, 1.31, 1.999])
@pytest.mark.parametrize("shape", [(30, 47), (61, 20), (33, 33)])
def test_a_resized_mask_is_opencvs_to_the_pixel(ratio: float, shape: tuple[int, int]):
    mask = noise(*shape)
    image = np.zeros((*shape, 3), np.uint8)
    draws = dataclasses.replace(PLAIN, ratio=ratio, corners=((0.0, 0.0),) * 11)
    _, ours = crop(image, mask, draws, size=40)
    shorter = int(40 * ratio)
    height, width = (int(length * shorter / min(shape) + 0.5) for length in shape)
    expected = cv2.resize(mask, (width, height), interpolation=cv2.INTER_NEAREST)[:40, :40]
    np.testing.assert_array_equal(ours.numpy(), expected)


@pytest.mark.parametrize("seed", range(12))
def test_a_view_is_that_of_the_published_pipeline_step_by_step(seed: int):
    image, mask = photo(), noise(26, 40).repeat(16, axis=0).repeat(16, axis=1)
    draws = segmentation_views.draw(np.random.default_rng(seed))
    pixels, truth = crop(image, mask, draws, size=192)
    expected, expected_truth = published(image, mask, draws, size=192)
    np.testing.assert_array_equal(truth.numpy(), expected_truth)
    apart = levels_apart(pixels, expected)
    # A level from resizing becomes several where contrast or saturation grow, and more where hue turns a dark pixel.
    assert apart.mean() < 0.35
    assert (apart > 4).mean() < 0.003


def test_a_crop_where_one_class_fills_too_much_is_drawn_again():
    mask = np.zeros((64, 64), np.uint8)
    mask[:, 32:] = 1
    bad, good = (0.0, 0.0), (0.0, 0.5)
    for tries in range(11):
        draws = dataclasses.replace(PLAIN, ratio=2.0, corners=(bad,) * tries + (good,) * (11 - tries))
        _, truth = crop(black(64, 64), mask, draws, size=32)
        assert set(truth.unique().tolist()) == {0, 1}, tries


def test_after_ten_redraws_the_last_crop_is_taken_whatever_it_shows():
    mask = noise(64, 64, classes=2)
    mask[:32] = 0
    mask[0, 0] = 3
    corners = ((0.2, 0.0),) * 10 + ((0.0, 0.0),)
    draws = dataclasses.replace(PLAIN, ratio=2.0, corners=corners)
    _, truth = crop(black(64, 64), mask, draws, size=32)
    assert truth[0, 0] == 3 and truth[2:].unique().tolist() == [0]


@pytest.mark.parametrize("seed", range(20))
def test_the_crop_is_the_one_brute_force_chooses(seed: int):
    random = np.random.default_rng(seed)
    # Large patches, few classes, many ignored: redraws happen often.
    mask = random.choice([0, 1, IGNORED], (4, 5), p=[0.6, 0.2, 0.2]).astype(np.uint8)
    mask = mask.repeat(20, axis=0).repeat(20, axis=1)
    draws = dataclasses.replace(segmentation_views.draw(random), flips=False)
    _, truth = crop(black(80, 100), mask, draws, size=40)
    _, expected = published(black(80, 100), mask, draws, size=40)
    np.testing.assert_array_equal(truth.numpy(), expected)


def test_an_image_smaller_than_the_crop_is_kept_whole_and_not_padded():
    draws = dataclasses.replace(PLAIN, ratio=0.5)
    pixels, truth = crop(photo(60, 40), noise(40, 60), draws, size=64)
    assert pixels.shape == (3, 32, 48) and truth.shape == (32, 48)


@pytest.mark.parametrize("shape", [(1, 1), (1, 300), (300, 1)])
def test_images_of_one_line_work(shape: tuple[int, int]):
    draws = dataclasses.replace(PLAIN, ratio=0.5)
    pixels, truth = crop(np.full((*shape, 3), 9, np.uint8), noise(*shape), draws, size=8)
    assert pixels.shape[1:] == truth.shape and max(truth.shape) <= 8 and (pixels == 9).all()


@pytest.mark.parametrize("seed", range(10))
def test_image_and_mask_stay_aligned(seed: int):
    mask = noise(10, 15, classes=8).repeat(30, axis=0).repeat(30, axis=1)
    draws = dataclasses.replace(segmentation_views.draw(np.random.default_rng(seed)), **NO_COLOURS)
    image = np.repeat(mask[..., None] * 30, 3, axis=2)
    pixels, truth = crop(image, mask, draws, size=128)
    edges = torch.zeros_like(truth, dtype=torch.bool)
    edges[:, 1:] |= truth[:, 1:] != truth[:, :-1]
    edges[1:] |= truth[1:] != truth[:-1]
    near = torch.nn.functional.max_pool2d(edges[None].float(), 5, stride=1, padding=2)[0]
    # Bilinear and nearest differ where patches meet; that can be just outside of the crop.
    near[:2], near[-2:], near[:, :2], near[:, -2:] = 1, 1, 1, 1
    assert not ((pixels[0] != truth * 30) & (near == 0)).any()


def test_a_flip_mirrors_image_and_mask():
    image, mask = tensor(photo(96, 64)), torch.from_numpy(noise(64, 96))
    plain = segmentation_views.training_view(image, mask, PLAIN, size=64)
    flipped = segmentation_views.training_view(image, mask, dataclasses.replace(PLAIN, flips=True), size=64)
    for one, other in zip(plain, flipped, strict=True):
        assert torch.equal(one.flip(-1), other)


# --- segmentation: colour


def test_hue_saturation_and_value_are_opencvs_for_bytes():
    colours = every_colour()
    ours = array(segmentation_views.to_hsv(tensor(colours).float()))
    expected = cv2.cvtColor(np.ascontiguousarray(colours[..., ::-1]), cv2.COLOR_BGR2HSV)
    np.testing.assert_array_equal(ours, expected)


def test_the_way_back_from_hue_is_opencvs_within_a_level():
    parts = np.arange(180), np.arange(0, 256, 3), np.arange(0, 256, 5)
    hsv = np.stack(np.meshgrid(*parts, indexing="ij"), -1).astype(np.uint8).reshape(180, -1, 3)
    hsv = np.ascontiguousarray(hsv[:, : hsv.shape[1] // 64 * 64])  # OpenCV rounds in the rest of a line
    apart = levels_apart(
        segmentation_views.from_hsv(tensor(hsv).float()), cv2.cvtColor(hsv, cv2.COLOR_HSV2BGR)[..., ::-1]
    )
    # Where OpenCV multiplies and adds at once, a float32 can lie on the other side of a whole number.
    assert apart.max() <= 1 and (apart > 0).mean() < 0.001


@pytest.mark.parametrize(
    "change",
    [
        {"brightness": -31.7},
        {"brightness": 20.4},
        {"contrast": 0.51},
        {"contrast": 1.49},
        {"saturation": 0.55},
        {"saturation": 1.45},
        {"hue": -18},
        {"hue": 17},
        {"contrast": 1.4, "contrast_first": True, "hue": 9, "saturation": 1.3, "brightness": 12.5},
        {"contrast": 0.6, "contrast_first": False, "hue": -5, "saturation": 0.7, "brightness": -12.5},
    ],
    ids=str,
)
def test_photometric_distortion_is_that_of_opencv_on_bytes(change: dict):
    draws = dataclasses.replace(PLAIN, **change)
    pixels, _ = crop(photo(), noise(416, 640), draws, size=416)
    left = int(0.5 * (640 - 416 + 1))
    apart = levels_apart(pixels, distorted(photo()[:, left : left + 416], draws))
    if change.keys() <= {"brightness", "contrast", "contrast_first"}:
        assert apart.max() == 0
    else:
        assert (apart > 1).mean() < 0.002 and apart.mean() < 0.02


def test_greys_stay_grey_and_untouched_by_hue_and_saturation():
    greys = np.arange(256, dtype=np.uint8).reshape(16, 16, 1).repeat(3, axis=2)
    draws = dataclasses.replace(PLAIN, hue=13, saturation=1.5)
    pixels, _ = crop(greys, noise(16, 16), draws, size=16)
    np.testing.assert_array_equal(array(pixels), greys)


def test_segmentation_draws_lie_in_their_ranges_and_fill_them():
    draws = many_segmentation_draws()
    for name, low, high in (
        ("ratio", 0.5, 2.0),
        ("brightness", -32, 32),
        ("contrast", 0.5, 1.5),
        ("saturation", 0.5, 1.5),
        ("hue", -18, 17),
    ):
        values = np.array([value for d in draws if (value := getattr(d, name)) is not None])
        assert low <= values.min() and values.max() <= high
        assert np.ptp(values) > 0.98 * (high - low)
        # Five standard errors of a mean of uniform numbers.
        assert abs(values.mean() - (low + high) / 2) < 5 * (high - low) / (12 * len(values)) ** 0.5
    assert {d.hue for d in draws} == {None, *range(-18, 18)}
    corners = np.array([d.corners for d in draws])
    assert corners.shape == (2000, 11, 2) and corners.min() >= 0 and corners.max() < 1
    assert abs(np.corrcoef(corners.reshape(2000, 22).T) - np.eye(22)).max() < 0.11


def test_flips_and_colour_operations_happen_to_half_of_the_crops_independently():
    draws = many_segmentation_draws()
    changes = ("brightness", "contrast", "saturation", "hue")
    happens = np.array(
        [[d.flips, d.contrast_first, *(getattr(d, name) is not None for name in changes)] for d in draws]
    )
    assert abs(happens.mean(0) - 0.5).max() < 5 * 0.5 / 2000**0.5
    assert abs(np.corrcoef(happens.T) - np.eye(6)).max() < 5 / 2000**0.5


# --- depth


@pytest.mark.parametrize("angle", [-2.5, -0.7, 1.3, 2.4])
def test_rotation_is_opencvs_with_black_around(angle: float):
    metres = np.random.default_rng(0).uniform(0.5, 9, (416, 640)).astype(np.float32)
    pixels, turned = depth_views.rotated(tensor(photo()), torch.from_numpy(metres), angle)
    assert levels_apart(pixels, opencv_rotated(photo(), angle, cv2.INTER_LINEAR)).max() <= 1
    # Halfway between two pixels either is the nearest.
    assert (turned.numpy() != opencv_rotated(metres, angle, cv2.INTER_NEAREST)).mean() < 1e-3
    assert turned[0, 0] == 0 or turned[0, -1] == 0


def test_positive_angles_turn_clockwise():
    metres = torch.zeros(41, 81)
    metres[20, 80] = 1.0
    _, turned = depth_views.rotated(torch.zeros(3, 41, 81, dtype=torch.uint8), metres, 2.5)
    assert turned[21:].sum() == 1 and turned[:21].sum() == 0


def test_a_depth_view_is_that_of_the_published_pipeline_step_by_step():
    image = photo(120, 90)
    metres = np.random.default_rng(0).uniform(0.5, 9, (90, 120)).astype(np.float32)
    border, size = (5, 85, 7, 115), (64, 96)
    for seed in range(20):
        draws = depth_views.draw(np.random.default_rng(seed))
        pixels, depth = depth_views.training_view(
            tensor(image), torch.from_numpy(metres), draws, border=border, size=size
        )
        expected, expected_depth = image[5:85, 7:115], metres[5:85, 7:115]
        if draws.angle is not None:
            expected = opencv_rotated(expected, draws.angle, cv2.INTER_LINEAR)
            expected_depth = opencv_rotated(expected_depth, draws.angle, cv2.INTER_NEAREST)
        if draws.flips:
            expected, expected_depth = expected[:, ::-1], expected_depth[:, ::-1]
        top, left = int(draws.corner[0] * 17), int(draws.corner[1] * 13)
        expected = expected[top : top + 64, left : left + 96].astype(np.float64)
        if draws.colour is not None:
            expected = expected**draws.colour.gamma * draws.colour.brightness * draws.colour.channels
        assert pixels.shape == (3, *size) and depth.shape == size
        # Half a level of rounding, and one of rotation that becomes at most 1.1 * 255 ** 0.1 * 1.25 * 1.1 = 2.6.
        assert levels_apart(pixels, expected.clip(0, 255)).max() <= (
            0.5 + 1e-6 if draws.angle is None else 3.2
        )
        assert (depth.numpy() != expected_depth[top : top + 64, left : left + 96]).mean() < 2e-3


def test_a_depth_view_of_a_small_image_is_smaller_than_the_crop():
    pixels, depth = depth_views.training_view(
        tensor(photo(60, 40)), torch.ones(40, 60), STILL, border=(2, 40, 0, 57), size=(64, 48)
    )
    assert pixels.shape == (3, 38, 48) and depth.shape == (38, 48)


def test_an_image_that_ends_before_the_border_is_an_error_with_both_sizes():
    with pytest.raises(DataError, match="60 x 40 px; wanted at least 61 x 40"):
        depth_views.training_view(tensor(photo(60, 40)), torch.ones(40, 60), STILL, border=(2, 40, 0, 61))


def test_image_and_depth_stay_aligned():
    tiles = noise(8, 10, classes=8).repeat(20, axis=0).repeat(20, axis=1) + 1
    image = np.repeat(tiles[..., None] * 25, 3, axis=2)
    for seed in range(20):
        draws = dataclasses.replace(depth_views.draw(np.random.default_rng(seed)), colour=None)
        pixels, depth = depth_views.training_view(
            tensor(image),
            torch.from_numpy(tiles.astype(np.float32)),
            draws,
            border=(10, 150, 10, 190),
            size=(96, 128),
        )
        # Bilinear and nearest differ where tiles of 20 pixels meet: 2 of 20, on two axes.
        assert (pixels[0] == depth * 25).float().mean() > 0.8


def test_colour_raises_levels_up_to_255_to_gamma():
    image = torch.tensor([100, 200, 255, 0], dtype=torch.uint8).expand(3, 1, 4)
    ours = depth_views.recoloured(image, Colour(gamma=0.95, brightness=0.9, channels=(1.0, 1.05, 0.92)))
    expected = [
        [round(channel * 0.9 * level**0.95) for level in (100, 200, 255, 0)] for channel in (1.0, 1.05, 0.92)
    ]
    assert ours[:, 0].tolist() == expected


def test_depth_draws_lie_in_their_ranges_and_fill_them():
    draws = many_depth_draws()
    colours = [d.colour for d in draws if d.colour is not None]
    channels = np.array([c.channels for c in colours])
    for values, low, high in (
        (np.array([d.angle for d in draws if d.angle is not None]), -2.5, 2.5),
        (np.array([c.gamma for c in colours]), 0.9, 1.1),
        (np.array([c.brightness for c in colours]), 0.75, 1.25),
        *((channels[:, i], 0.9, 1.1) for i in range(3)),
        *((np.array([d.corner[i] for d in draws]), 0.0, 1.0) for i in range(2)),
    ):
        assert low <= values.min() and values.max() < high
        assert np.ptp(values) > 0.98 * (high - low)
        assert abs(values.mean() - (low + high) / 2) < 5 * (high - low) / (12 * len(values)) ** 0.5
    happens = np.array([[d.angle is not None, d.flips, d.colour is not None] for d in draws])
    assert abs(happens.mean(0) - 0.5).max() < 5 * 0.5 / 2000**0.5
    assert abs(np.corrcoef(happens.T) - np.eye(3)).max() < 5 / 2000**0.5


# --- both


def test_the_same_draws_make_the_same_view_and_leave_their_input_alone():
    image, mask = tensor(photo(160, 120).copy()), torch.from_numpy(noise(120, 160))
    metres = mask.float()
    before = image.clone(), mask.clone(), metres.clone()
    for seed in range(5):
        views = [
            (
                *segmentation_views.training_view(
                    image, mask, segmentation_views.draw(np.random.default_rng(seed)), size=64
                ),
                *depth_views.training_view(
                    image,
                    metres,
                    depth_views.draw(np.random.default_rng(seed)),
                    border=(0, 120, 0, 160),
                    size=(64, 96),
                ),
            )
            for _ in range(2)
        ]
        assert all(torch.equal(one, other) for one, other in zip(*views, strict=True))
        assert all(part.is_contiguous() for part in views[0])
    assert all(torch.equal(one, other) for one, other in zip(before, (image, mask, metres), strict=True))


@pytest.mark.parametrize("length, size", [(10, 4), (4, 4), (3, 4)])
def test_every_place_where_a_crop_fits_has_the_same_share(length: int, size: int):
    draws = (np.arange(700) + 0.5) / 700
    places = [segmentation_views.first_place(length, size, float(draw)) for draw in draws]
    fits = max(length - size, 0) + 1
    assert np.bincount(places).tolist() == [700 // fits] * fits


def published(
    image: np.ndarray, mask: np.ndarray, draws: SegmentationDraws, *, size: int
) -> tuple[np.ndarray, np.ndarray]:
    """mmseg 0.30's pipeline, with OpenCV and NumPy on whole images."""
    scale = int(size * draws.ratio) / min(mask.shape)
    height, width = (int(length * scale + 0.5) for length in mask.shape)
    image = cv2.resize(image, (width, height), interpolation=cv2.INTER_LINEAR)
    mask = cv2.resize(mask, (width, height), interpolation=cv2.INTER_NEAREST)
    drawn = iter(draws.corners)

    def place() -> tuple[slice, slice]:
        down, across = next(drawn)
        top, left = int(down * (max(height - size, 0) + 1)), int(across * (max(width - size, 0) + 1))
        return slice(top, top + size), slice(left, left + size)

    where = place()
    for _ in range(10):
        labels, counts = np.unique(mask[where], return_counts=True)
        counts = counts[labels != IGNORED]
        if len(counts) > 1 and counts.max() / counts.sum() < 0.75:
            break
        where = place()
    image, mask = image[where], mask[where]
    if draws.flips:
        image, mask = image[:, ::-1], mask[:, ::-1]
    return distorted(image, draws), mask


def distorted(image: np.ndarray, draws: SegmentationDraws) -> np.ndarray:
    """RGB in, RGB out; what happens between is on OpenCV's BGR bytes."""

    def converted(x: np.ndarray, factor: float = 1.0, added: float = 0.0) -> np.ndarray:
        return np.clip(x.astype(np.float32) * factor + added, 0, 255).astype(np.uint8)

    x = np.ascontiguousarray(image[..., ::-1])
    if draws.brightness is not None:
        x = converted(x, added=draws.brightness)
    if draws.contrast_first and draws.contrast is not None:
        x = converted(x, draws.contrast)
    if draws.saturation is not None:
        hsv = cv2.cvtColor(x, cv2.COLOR_BGR2HSV)
        hsv[..., 1] = converted(hsv[..., 1], draws.saturation)
        x = cv2.cvtColor(hsv, cv2.COLOR_HSV2BGR)
    if draws.hue is not None:
        hsv = cv2.cvtColor(x, cv2.COLOR_BGR2HSV)
        hsv[..., 0] = (hsv[..., 0].astype(int) + draws.hue) % 180
        x = cv2.cvtColor(hsv, cv2.COLOR_HSV2BGR)
    if not draws.contrast_first and draws.contrast is not None:
        x = converted(x, draws.contrast)
    return x[..., ::-1]


def opencv_rotated(image: np.ndarray, angle: float, how: int) -> np.ndarray:
    height, width = image.shape[:2]
    matrix = cv2.getRotationMatrix2D(((width - 1) / 2, (height - 1) / 2), -angle, 1.0)
    return cv2.warpAffine(image, matrix, (width, height), flags=how, borderValue=0)
