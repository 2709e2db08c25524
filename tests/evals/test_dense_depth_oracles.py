"""Parts of dense evaluation against torch's own schedules, and against NumPy over 200 random cases."""

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import nn
from torch.optim.lr_scheduler import CosineAnnealingLR, OneCycleLR, PolynomialLR

from unic.core.errors import WeightsError
from unic.data.dense.annotations import Depths
from unic.evals.dense.depth_head import DepthHead, layers_for, read_depth_head, sig_loss
from unic.evals.dense.depth_metrics import DepthMetrics
from unic.evals.dense.lr_schedules import cosine, one_cycle_momentum, poly
from unic.method.tokens import TokenMaps

STEPS = 97


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


def test_bins_are_of_equal_width_from_the_nearest_to_the_farthest():
    bins = DepthHead([3], nearest=1e-3, farthest=10.0).bins
    assert len(bins) == 256 and float(bins[0]) == pytest.approx(1e-3) and float(bins[-1]) == 10
    np.testing.assert_allclose(np.diff(bins.double().numpy()), (10 - 1e-3) / 255, atol=2e-6)


@pytest.mark.parametrize("layers", [1, 4])
def test_convolving_first_changes_neither_scores_nor_gradients_in_float64(layers: int):
    g = torch.Generator().manual_seed(layers)
    read = [
        TokenMaps(torch.randn(2, 4, generator=g).double(), torch.randn(2, 3, 5, 6, generator=g).double())
        for _ in range(layers)
    ]
    head = DepthHead([7] * layers, nearest=1e-3, farthest=10.0).double()
    upsampled = [
        F.interpolate(
            torch.cat([found.patches, found.cls[:, :, None, None].expand(-1, -1, 5, 6)], 1),
            scale_factor=4, mode="bilinear", align_corners=False,
        )
        for found in read
    ]  # fmt: skip
    scores = head.conv_depth(torch.cat(upsampled, 1)).relu() + 0.1
    depth = (scores * head.bins[:, None, None]).sum(1) / scores.sum(1)
    literal = F.interpolate(depth.clamp(1e-3, 10.0)[:, None], (50, 61), mode="bilinear")[:, 0]
    found = head(read, (50, 61))
    torch.testing.assert_close(found, literal, atol=1e-12, rtol=1e-12)
    slopes = [torch.autograd.grad(out.square().mean(), list(head.parameters())) for out in (found, literal)]
    torch.testing.assert_close(slopes[0], slopes[1], atol=1e-12, rtol=1e-9)


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


@pytest.mark.parametrize("depth", range(4, 49))
def test_four_blocks_ascend_and_end_with_the_last(depth: int):
    found = layers_for(depth, 4)
    assert list(found) == sorted(set(found)) and len(found) == 4
    assert found[0] >= 0 and found[-1] == depth - 1


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


def test_measures_are_those_of_numpy_for_200_random_images():
    for seed in range(200):
        g = np.random.default_rng(seed)
        height, width = (int(n) for n in g.integers(8, 20, 2))
        top, left = (int(n) for n in g.integers(0, 4, 2))
        depths = Depths(
            scale=1000.0,
            nearest=0.5,
            farthest=8.0,
            scored=(top, height - 2, left, width - 3),
            border=(0, 1, 0, 1),
        )
        true = g.uniform(0.1, 10, (height, width))
        true[top, left] = 1.0  # so that one pixel counts
        predicted = np.clip(true * np.exp(g.normal(0, 0.4, true.shape)), 1e-3, 10)
        metrics = DepthMetrics(depths)
        metrics.update(torch.from_numpy(predicted), torch.from_numpy(true))
        counts = [
            (predicted[y, x], true[y, x])
            for y in range(top, height - 2)
            for x in range(left, width - 3)
            if 0.5 < true[y, x] < 8
        ]
        p, t = np.array(counts).T
        e, ratio = np.log(p / t), np.maximum(p / t, t / p)
        expected = {
            "rmse": np.sqrt(((p - t) ** 2).mean()),
            "abs_rel": (abs(p - t) / t).mean(),
            "sq_rel": ((p - t) ** 2 / t).mean(),
            "log10": abs(e / np.log(10)).mean(),
            "rmse_log": np.sqrt((e**2).mean()),
            "silog": 100 * e.std(),
            **{f"d{i}": (ratio < 1.25**i).mean() for i in (1, 2, 3)},
        }
        # silog is the root of a difference: of one pixel it is 0 up to the root of float64's precision.
        scores = {score.metric: score.value for score in metrics.scores()}
        assert scores == pytest.approx(expected, rel=1e-7, abs=1e-5)
