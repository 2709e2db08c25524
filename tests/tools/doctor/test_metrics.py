"""The numbers of the tables, of features that are known, and against NumPy in float64."""

import numpy as np
import pytest
import torch
from doctor_images import Colours, photographs

from unic.method.types import Tokens
from unic.teachers.live_teachers import resample
from unic.tools.doctor.features import TeacherFeatures, extract_features
from unic.tools.doctor.metrics import pair_metrics, teacher_metrics
from unic.tools.doctor.sample_images import SampleImages, read_sample_images

CPU = torch.device("cpu")


@pytest.fixture(scope="module")
def pictures(tmp_path_factory) -> SampleImages:
    return read_sample_images(
        photographs(tmp_path_factory.mktemp("photographs"), 40), [32], 40, batch_size=16
    )


def draw(seed: int, *shape: int) -> torch.Tensor:
    return torch.tensor(np.random.default_rng(seed).normal(size=shape), dtype=torch.float32)


def seen(cls: torch.Tensor, patches: torch.Tensor, *, batch_size: int = 8, finite=None) -> TeacherFeatures:
    return TeacherFeatures(
        cls=cls,
        patches=patches,
        aligned=patches,
        norms=patches.norm(dim=-1),
        finite=torch.ones(len(cls), dtype=torch.bool) if finite is None else finite,
        images_per_second=10.0,
        parameter_bytes=2_000_000,
        batch_bytes=500_000,
        batch_size=batch_size,
    )


def loss_of_zeros(known: np.ndarray, new: np.ndarray, floor: float) -> float:
    """0.5 (1 - cos) + 0.5 smooth L1 of zeros; the cosine with a zero vector counts as 0."""
    std = known.std(0, ddof=1) + 1e-6
    target = (new - known.mean(0)) / (np.maximum(std, floor * np.sort(std)[(len(std) - 1) // 2]) + 1e-6)
    size = np.abs(target)
    return float(0.5 + 0.5 * np.where(size < 1, 0.5 * size**2, size - 0.5).mean())


def test_expected_losses_are_those_of_a_student_that_answers_the_mean():
    cls = draw(0, 40, 6) * 3 + 1
    cls[:, 0] = 0.0
    cls[1::4, 0] = 0.2  # never among the images of the statistics
    (row, _) = teacher_metrics("t", seen(cls, cls[:, None].expand(-1, 2, -1)))
    array = cls.double().numpy()
    warm_up, new = array[::2], array[1::2]
    first = warm_up[[i * 20 // 8 for i in range(8)]]
    assert row.first_batch == 8
    assert row.expected_loss == pytest.approx(loss_of_zeros(warm_up, new, 0.05), rel=1e-4)
    assert row.expected_loss_without_floor == pytest.approx(loss_of_zeros(first, new, 0.0), rel=1e-2)
    assert (
        row.expected_loss_without_floor > 1000
    )  # 0.2 over 2e-6, in one dimension of six and half of the images


def test_normal_features_begin_at_about_seven_tenths():
    (cls, patches) = teacher_metrics("t", seen(draw(1, 400, 16), draw(2, 400, 3, 16), batch_size=100))
    for row in (cls, patches):
        smooth_l1 = 0.425  # its mean over a standard normal distribution
        assert row.expected_loss == pytest.approx(0.5 + 0.5 * smooth_l1, abs=0.02)
        assert row.expected_loss_without_floor == pytest.approx(row.expected_loss, abs=0.02)
    assert (cls.memory_mb, cls.parameters_mb) == (2.5, 2.0)


def test_three_large_dimensions_hold_most_of_the_length():
    cls = draw(3, 50, 20)
    cls[:, :3] = 100.0
    share = (3 * 100**2) / (3 * 100**2 + 17)
    assert teacher_metrics("t", seen(cls, cls[:, None]))[0].largest_share == pytest.approx(share, rel=1e-3)


def test_an_image_with_features_that_are_not_finite_is_left_out():
    cls, patches = draw(4, 30, 5), draw(5, 30, 4, 5)
    finite = torch.ones(30, dtype=torch.bool)
    finite[[3, 17]] = False
    spoilt_cls, spoilt_patches = cls.clone(), patches.clone()
    spoilt_cls[3], spoilt_patches[17, 2] = torch.nan, torch.inf
    spoilt = teacher_metrics("t", seen(spoilt_cls, spoilt_patches, finite=finite))
    expected = teacher_metrics("t", seen(cls[finite], patches[finite]))
    assert [row.norm for row in spoilt] == [row.norm for row in expected]
    assert [row.effective_rank for row in spoilt] == [row.effective_rank for row in expected]
    both = {"a": seen(spoilt_cls, spoilt_patches, finite=finite), "b": seen(cls, patches)}
    assert all(pair.cka == pytest.approx(1) for pair in pair_metrics(both))
    none = seen(spoilt_cls, spoilt_patches, finite=torch.zeros(30, dtype=torch.bool))
    assert all(row.norm is None and row.expected_loss is None for row in teacher_metrics("t", none))
    assert pair_metrics({"a": none, "b": seen(cls, patches)}) == []


def test_one_image_has_a_norm_and_nothing_that_needs_two():
    (cls, patches) = teacher_metrics("t", seen(draw(6, 1, 5), draw(7, 1, 9, 5)))
    assert cls.norm is not None and cls.effective_rank is None and cls.expected_loss is None
    assert patches.effective_rank is not None and patches.rank_limit == 5


def test_every_pair_is_compared_once_in_both_kinds_of_token():
    three = {name: seen(draw(seed, 20, 5), draw(seed, 20, 2, 5)) for seed, name in enumerate("abc")}
    found = [(pair.a, pair.b, pair.token) for pair in pair_metrics(three)]
    assert found == [(a, b, token) for a, b in ("ab", "ac", "bc") for token in ("cls", "patches")]
    assert pair_metrics({"a": three["a"]}) == []


def test_patches_of_two_grids_are_compared_place_by_place(pictures: SampleImages):
    """Mean colours of cells, and of cells a quarter the size, are much the same once they lie on one grid."""
    coarse, fine = Colours(name="coarse", grid=4), Colours(name="fine", grid=8)
    found = {
        encoder.name: extract_features(encoder, pictures, (4, 4), batch_size=16, device=CPU)
        for encoder in (coarse, fine)
    }
    (_, patches) = pair_metrics(found)
    assert patches.cka > 0.98
    assert patches.neighbours > 0.3  # by chance: 10 of 639, 0.016


def test_kept_patches_are_among_those_of_the_image(pictures: SampleImages):
    encoder = Colours(name="colours", grid=8)
    found = extract_features(encoder, pictures, (4, 4), batch_size=16, device=CPU)
    tokens = encoder(pictures.views[32])
    torch.testing.assert_close(found.cls, tokens.cls)
    torch.testing.assert_close(found.norms, tokens.patches.norm(dim=-1))
    for kept, all_patches in (
        (found.patches, tokens.patches),
        (found.aligned, resample(tokens, (4, 4)).patches),
    ):
        distance = torch.cdist(kept, all_patches).min(dim=2).values
        assert distance.max() < 1e-3
        assert 1 < kept.shape[1] <= all_patches.shape[1]
    assert found.images_per_second > 0
    assert found.batch_size == 16


def test_what_is_not_finite_is_noticed_image_by_image(pictures: SampleImages):
    def spoil(tokens: Tokens, pixels: torch.Tensor) -> Tokens:
        bright = pixels.mean((1, 2, 3)) > limit
        return Tokens(tokens.cls, tokens.patches.masked_fill(bright[:, None, None], torch.inf))

    brightness = pictures.views[32].float().mean((1, 2, 3)) / 255
    limit = brightness.sort().values[19:21].mean()  # half-way between two images
    found = extract_features(
        Colours(name="spoilt", grid=2, spoil=spoil), pictures, (2, 2), batch_size=16, device=CPU
    )
    assert found.finite.sum() == 20
