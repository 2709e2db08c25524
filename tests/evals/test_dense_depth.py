"""Head, loss, measures and schedules of depth: against published numbers, torch's schedulers and NumPy in float64."""

import math
from pathlib import Path

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from safetensors.torch import save_file
from torch import nn
from torch.optim.lr_scheduler import CosineAnnealingLR, OneCycleLR, PolynomialLR

from unic.core.errors import DataError, WeightsError
from unic.data.datasets import DATASETS
from unic.data.dense.read_annotations import Depths
from unic.evals.dense.depth_head import DepthHead, layers_for, read_depth_head, sig_loss
from unic.evals.dense.depth_metrics import DepthMetrics
from unic.evals.dense.lr_schedules import cosine, one_cycle_momentum, poly
from unic.method.types import TokenMaps
from unic.models.weights import read_weights

NYU = DATASETS["nyud"].truth(Path())
assert isinstance(NYU, Depths)
STEPS = 97


@pytest.mark.parametrize(
    ("step", "expected"),
    [
        (0, 1e-6),
        (1, (1 - 1 / 40000) * (1 - (1 - 1 / 1500) * (1 - 1e-6))),
        (1499, (1 - 1499 / 40000) * (1 - (1 / 1500) * (1 - 1e-6))),
        (1500, 1 - 1500 / 40000),
        (39999, 1 / 40000),
    ],
)
def test_the_rate_of_segmentation_is_poly_times_warm_up(step: int, expected: float):
    assert poly(step, steps=40000, warmup=1500) == pytest.approx(expected, rel=1e-12)


@pytest.mark.parametrize(
    ("step", "expected"),
    [
        (0, 1e-3),
        (12799, (0.5 + 0.5 * math.cos(math.pi * 12799 / 38400)) * (1 - (1 / 12800) * (1 - 1e-3))),
        (12800, 0.75),
        (19200, 0.5),
        (38399, 1e-8 + (1 - 1e-8) * (0.5 + 0.5 * math.cos(math.pi * 38399 / 38400))),
    ],
)
def test_the_rate_of_depth_is_a_cosine_times_warm_up(step: int, expected: float):
    assert cosine(step, steps=38400, warmup=12800) == pytest.approx(expected, rel=1e-6)


def test_without_warm_up_rates_begin_at_the_base():
    assert poly(0, steps=10, warmup=0) == 1 and cosine(0, steps=10, warmup=0) == 1


def test_momentum_goes_down_for_three_tenths_and_back_up():
    values = [one_cycle_momentum(step, steps=1000) for step in range(1000)]
    assert values[0] == 0.95 and values[-1] == pytest.approx(0.95) and min(values) == pytest.approx(0.85)
    assert values.index(min(values)) == 299
    assert all(0.85 <= one_cycle_momentum(s, steps=n) <= 0.95 for n in (1, 2, 3) for s in range(n))


def optimizer() -> torch.optim.AdamW:
    return torch.optim.AdamW([nn.Parameter(torch.zeros(1))], lr=1.0, betas=(0.9, 0.999))


def rates_of(scheduler: torch.optim.lr_scheduler.LRScheduler, key: str = "lr") -> list[float]:
    """What torch's scheduler sets before each of the steps."""
    found = []
    for _ in range(STEPS):
        value = scheduler.optimizer.param_groups[0][key]
        found.append(value[0] if key == "betas" else value)
        scheduler.optimizer.step()
        scheduler.step()
    return found


def test_after_warm_up_rates_are_those_of_torchs_schedulers():
    polynomial = rates_of(PolynomialLR(optimizer(), total_iters=STEPS, power=1.0))
    half_cosine = rates_of(CosineAnnealingLR(optimizer(), T_max=STEPS, eta_min=1e-8))
    for step in range(30, STEPS):
        assert poly(step, steps=STEPS, warmup=30) == pytest.approx(polynomial[step], rel=1e-9)
        assert cosine(step, steps=STEPS, warmup=30) == pytest.approx(half_cosine[step], rel=1e-6)


def test_warm_up_multiplies_what_has_fallen_already():
    for step in range(30):
        warm = 0.2 + 0.8 * step / 30
        for rate in (poly, cosine):
            plain = rate(step, steps=STEPS, warmup=0)
            assert rate(step, steps=STEPS, warmup=30, start=0.2) == pytest.approx(plain * warm, rel=1e-12)


def test_momentum_is_that_of_torchs_one_cycle():
    torchs = rates_of(OneCycleLR(optimizer(), 1.0, total_steps=STEPS + 1, pct_start=0.3), "betas")
    # torch and mmcv end a cycle of n steps at step n - 1; one more was asked for so that torch may be stepped n times.
    assert [one_cycle_momentum(step, steps=STEPS + 1) for step in range(STEPS)] == pytest.approx(torchs)


@pytest.mark.parametrize("step", [-1, 10, 11])
def test_a_step_outside_of_the_run_is_a_mistake_of_the_caller(step: int):
    for schedule in (lambda: poly(step, steps=10, warmup=2), lambda: cosine(step, steps=10, warmup=2),
                     lambda: one_cycle_momentum(step, steps=10)):  # fmt: skip
        with pytest.raises(AssertionError, match=f"step {step} of 10"):
            schedule()


def maps(*shapes: tuple[int, int, int, int]) -> list[TokenMaps]:
    g = torch.Generator().manual_seed(0)
    return [
        TokenMaps(torch.randn(b, d + 1, generator=g).double(), torch.randn(b, d, h, w, generator=g).double())
        for b, d, h, w in shapes
    ]


def in_the_original_order(head: DepthHead, read: list[TokenMaps], size: tuple[int, int]) -> torch.Tensor:
    """CLS joined, each map upsampled fourfold, joined, convolved; bins; clamped; resized (BNHead of DINOv2's depth)."""
    parts = []
    for layer in read:
        cls = layer.cls[:, :, None, None].expand(-1, -1, *layer.patches.shape[2:])
        parts.append(F.interpolate(torch.cat([layer.patches, cls], 1), scale_factor=4, mode="bilinear"))
    scores = torch.einsum("bdhw,kd->bkhw", torch.cat(parts, 1), head.conv_depth.weight[:, :, 0, 0])
    scores = torch.relu(scores + head.conv_depth.bias[:, None, None]) + 0.1
    depth = (scores / scores.sum(1, keepdim=True) * head.bins[:, None, None]).sum(1, keepdim=True)
    return F.interpolate(depth.clamp(1e-3, 10), size, mode="bilinear")[:, 0]


@pytest.mark.parametrize("layers", [1, 4])
def test_convolving_first_changes_neither_depths_nor_gradients(layers: int):
    read = maps(*[(2, 5, 3, 4)] * layers)
    head = DepthHead([11] * layers, nearest=1e-3, farthest=10.0).double()
    depths, expected = head(read, (48, 61)), in_the_original_order(head, read, (48, 61))
    torch.testing.assert_close(depths, expected, atol=1e-12, rtol=1e-12)
    assert depths.shape == (2, 48, 61) and depths.min() >= 1e-3 and depths.max() <= 10
    gradients = [
        torch.autograd.grad(each.square().mean(), list(head.parameters())) for each in (depths, expected)
    ]
    torch.testing.assert_close(gradients[0], gradients[1], atol=1e-12, rtol=1e-9)


def test_bins_are_of_equal_width_from_the_nearest_to_the_farthest():
    bins = DepthHead([3], nearest=1e-3, farthest=10.0).bins
    assert len(bins) == 256 and float(bins[0]) == pytest.approx(1e-3) and float(bins[-1]) == 10
    np.testing.assert_allclose(np.diff(bins.double().numpy()), (10 - 1e-3) / 255, atol=2e-6)


def test_depth_is_the_centre_of_the_bin_that_is_all_that_is_likely():
    head = DepthHead([2], nearest=1e-3, farthest=10.0).double()
    nn.init.zeros_(head.conv_depth.weight)
    with torch.no_grad():
        head.conv_depth.bias.fill_(-5.0)
        head.conv_depth.bias[100] = 1e9
    found = head([TokenMaps(torch.ones(1, 1).double(), torch.ones(1, 1, 2, 2).double())], (4, 4))
    torch.testing.assert_close(
        found, torch.full_like(found, 1e-3 + 100 * (10 - 1e-3) / 255), atol=1e-5, rtol=0.0
    )


@pytest.mark.parametrize(
    ("depth", "expected"),
    [
        (12, (2, 5, 8, 11)),
        (24, (4, 11, 17, 23)),
        (40, (9, 19, 29, 39)),
        (6, (0, 2, 3, 5)),
        (None, (-4, -3, -2, -1)),
    ],
)
def test_four_blocks_are_the_published_ones_or_evenly_spread(depth, expected):
    assert layers_for(depth, 4) == expected
    assert layers_for(depth, 1) == (-1,)


@pytest.mark.parametrize("depth", range(4, 49))
def test_four_blocks_ascend_and_end_with_the_last(depth: int):
    found = layers_for(depth, 4)
    assert list(found) == sorted(set(found)) and len(found) == 4
    assert found[0] >= 0 and found[-1] == depth - 1


LAYOUTS = {
    "mdet": lambda head: {"meta": {"epoch": 1}, "state_dict": head},
    "bare": lambda head: head,
    "ddp": lambda head: {"state_dict": {f"module.{name}": tensor for name, tensor in head.items()}},
    "head alone": lambda head: {name.removeprefix("decode_head."): tensor for name, tensor in head.items()},
}


@pytest.mark.parametrize("layout", LAYOUTS)
def test_a_published_depth_head_is_read_in_every_layout(layout: str, tmp_path: Path):
    g = torch.Generator().manual_seed(1)
    state = {
        "decode_head.conv_depth.weight": torch.randn(256, 11, 1, 1, generator=g),
        "decode_head.conv_depth.bias": torch.randn(256, generator=g),
    }
    path = tmp_path / "head.pth"
    torch.save(LAYOUTS[layout](state), path)
    head = read_depth_head(read_weights(path), [11], nearest=1e-3, farthest=10.0, origin=str(path)).double()
    assert torch.equal(head.conv_depth.weight.float(), state["decode_head.conv_depth.weight"])
    read = maps((1, 5, 2, 2))
    torch.testing.assert_close(
        head(read, (8, 8)), in_the_original_order(head, read, (8, 8)), atol=1e-5, rtol=1e-5
    )


@pytest.mark.parametrize(
    ("name", "shape", "widths", "said"),
    [
        (
            "conv_depth.weight",
            (256, 44, 1, 1),
            [11],
            r"width 44.*gives 11; it is for four \(--depth.blocks four\)",
        ),
        ("conv_depth.weight", (64, 11, 1, 1), [11], "is no linear head for depth"),
        ("conv_seg.weight", (150, 11, 1, 1), [11], "is no linear head for depth"),
    ],
)
def test_another_kind_of_head_is_refused(tmp_path: Path, name: str, shape, widths, said: str):
    path = tmp_path / "head.safetensors"
    save_file(
        {f"decode_head.{name}": torch.ones(shape), "decode_head.conv_depth.bias": torch.ones(256)}, path
    )
    with pytest.raises(WeightsError, match=said):
        read_depth_head(read_weights(path), widths, nearest=1e-3, farthest=10.0, origin=str(path))


def test_a_backbone_beside_the_head_is_passed_over_and_a_head_in_half_is_refused():
    weight = torch.ones(256, 6, 1, 1)
    state = {"backbone.norm.weight": torch.ones(3), "decode_head.conv_depth.weight": weight}
    with pytest.raises(WeightsError, match=r"somewhere.*1 missing: conv_depth.bias"):
        read_depth_head(state, [6], nearest=1e-3, farthest=10.0, origin="somewhere")
    state["decode_head.conv_depth.bias"] = torch.full((256,), 2.0)
    head = read_depth_head(state, [6], nearest=1e-3, farthest=10.0, origin="somewhere")
    assert torch.equal(head.conv_depth.weight, weight) and not head.training


def test_the_loss_is_its_formula_in_numpy_for_200_random_batches():
    for seed in range(200):
        g = np.random.default_rng(seed)
        shape = tuple(int(n) for n in g.integers(1, 7, 3))
        predicted, truth = g.uniform(1e-3, 10, shape), g.uniform(1e-3, 10, shape)
        truth[g.random(shape) < g.random() * 0.8] = 0
        e = np.log(predicted[truth > 0] + 1e-3) - np.log(truth[truth > 0] + 1e-3)
        tensors = torch.from_numpy(predicted), torch.from_numpy(truth)
        mean = 0.15 * e.mean() ** 2 if e.size else 0.0
        variance = float(e.var(ddof=1)) if e.size > 1 else 0.0
        assert float(sig_loss(*tensors, step=99)) == pytest.approx(np.sqrt(mean), rel=1e-9, abs=2e-6)
        assert float(sig_loss(*tensors, step=100)) == pytest.approx(
            np.sqrt(variance + mean), rel=1e-9, abs=2e-6
        )


def test_the_loss_has_the_slope_of_its_formula():
    g = torch.Generator().manual_seed(0)
    predicted = (torch.rand(2, 3, 3, generator=g, dtype=torch.float64) + 0.5).requires_grad_()
    truth = torch.rand(2, 3, 3, generator=g, dtype=torch.float64) + 0.5
    assert torch.autograd.gradcheck(lambda x: sig_loss(x, truth, step=500), predicted)


@pytest.mark.parametrize("step", [0, 500])
def test_a_batch_of_unknown_depth_or_no_error_teaches_nothing(step: int):
    for truth in (torch.zeros(1, 2, 2), torch.ones(1, 2, 2)):
        predicted = torch.ones(1, 2, 2, requires_grad=True)
        loss = sig_loss(predicted, truth, step=step)
        loss.backward()
        assert float(loss.detach()) == 0
        assert predicted.grad is not None and not predicted.grad.any()


def measured_by_numpy(predicted: np.ndarray, true: np.ndarray, depths: Depths) -> dict[str, float]:
    top, bottom, left, right = depths.scored
    p, t = predicted[top:bottom, left:right], true[top:bottom, left:right]
    counts = (t > depths.nearest) & (t < depths.farthest)
    p, t = p[counts], t[counts]
    e, ratio = np.log(p) - np.log(t), np.maximum(p / t, t / p)
    return {
        "rmse": np.sqrt(np.mean((p - t) ** 2)),
        "abs_rel": np.mean(np.abs(p - t) / t),
        "sq_rel": np.mean((p - t) ** 2 / t),
        "log10": np.mean(np.abs(np.log10(p) - np.log10(t))),
        "rmse_log": np.sqrt(np.mean(e**2)),
        "silog": 100 * e.std(),
        **{f"d{i}": np.mean(ratio < 1.25**i) for i in (1, 2, 3)},
    }


def test_measures_are_means_over_images_of_what_numpy_finds_in_the_eigen_crop():
    assert NYU.scored == (45, 471, 41, 601) and (NYU.nearest, NYU.farthest) == (1e-3, 10)
    metrics, expected = DepthMetrics(NYU), []
    for seed in range(6):
        g = np.random.default_rng(seed)
        true = g.uniform(0.5, 12, (480, 640)).astype(np.float32)
        true[g.random(true.shape) < 0.4] = 0
        predicted = (true * np.exp(g.normal(0, 0.3, true.shape)) + 0.1).astype(np.float32).clip(1e-3, 10)
        metrics.update(torch.from_numpy(predicted), torch.from_numpy(true))
        expected.append(measured_by_numpy(predicted.astype(np.float64), true.astype(np.float64), NYU))
    scores = {score.metric: score.value for score in metrics.scores()}
    assert next(iter(scores)) == "rmse"
    means = {name: np.mean([each[name] for each in expected]) for name in expected[0]}
    assert scores == pytest.approx(means, rel=1e-6)


def test_measures_are_those_of_numpy_for_200_random_images():
    for seed in range(200):
        g = np.random.default_rng(seed)
        height, width = (int(n) for n in g.integers(8, 20, 2))
        top, left = (int(n) for n in g.integers(0, 4, 2))
        scored = (top, height - 2, left, width - 3)
        depths = Depths(scale=1000.0, nearest=0.5, farthest=8.0, scored=scored, border=(0, 1, 0, 1))
        true = g.uniform(0.1, 10, (height, width))
        true[top, left] = 1.0  # so that one pixel counts
        predicted = np.clip(true * np.exp(g.normal(0, 0.4, true.shape)), 1e-3, 10)
        metrics = DepthMetrics(depths)
        metrics.update(torch.from_numpy(predicted), torch.from_numpy(true))
        scores = {score.metric: score.value for score in metrics.scores()}
        # silog is the root of a difference: of one pixel it is 0 up to the root of float64's precision.
        assert scores == pytest.approx(measured_by_numpy(predicted, true, depths), rel=1e-7, abs=1e-5)


def test_pixels_outside_of_the_crop_and_the_range_count_nowhere():
    gt = torch.full((480, 640), 2.0)
    d = gt.clone()
    d[:45], d[471:], d[:, :41], d[:, 601:] = 9.0, 9.0, 9.0, 9.0
    gt[100, 100], gt[101, 101], gt[102, 102] = 10.0, 0.0, 1e-3
    metrics = DepthMetrics(NYU)
    metrics.update(d, gt)
    found = {score.metric: score.value for score in metrics.scores()}
    assert found["rmse"] == 0 and found["d1"] == 1


def test_an_image_without_a_known_pixel_is_an_error():
    with pytest.raises(DataError, match="no pixel of known depth"):
        DepthMetrics(NYU).update(torch.ones(480, 640), torch.zeros(480, 640))
