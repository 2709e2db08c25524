"""Head, loss, measures and schedules of dense tasks, against NumPy in float64 and the published formulas."""

import math
from pathlib import Path

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from safetensors.torch import save_file

from unic.core.errors import DataError, WeightsError
from unic.data.datasets import DATASETS
from unic.data.dense.annotations import Depths
from unic.evals.dense.depth_head import DepthHead, layers_for, read_depth_head, sig_loss
from unic.evals.dense.depth_metrics import DepthMetrics
from unic.evals.dense.lr_schedules import cosine, one_cycle_momentum, poly
from unic.method.tokens import TokenMaps
from unic.models.weights import read_weights

NYU = DATASETS["nyud"].truth(Path())
assert isinstance(NYU, Depths)


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
    assert values[149] == pytest.approx(0.9, abs=1e-3)  # half-way along the cosine
    assert values[:300] == sorted(values[:300], reverse=True) and values[299:] == sorted(values[299:])
    assert all(0.85 <= one_cycle_momentum(s, steps=n) <= 0.95 for n in (1, 2, 3) for s in range(n))


def maps(*shapes: tuple[int, int, int, int], dtype: torch.dtype = torch.float64) -> list[TokenMaps]:
    g = torch.Generator().manual_seed(0)
    return [
        TokenMaps(
            torch.randn(b, d + 1, generator=g, dtype=dtype), torch.randn(b, d, h, w, generator=g, dtype=dtype)
        )
        for b, d, h, w in shapes
    ]


def in_the_original_order(head: DepthHead, read: list[TokenMaps], size: tuple[int, int]) -> torch.Tensor:
    """CLS joined, each map upsampled fourfold, joined, convolved; bins; clamped; resized (BNHead of DINOv2's depth)."""
    parts = []
    for found in read:
        cls = found.cls[:, :, None, None].expand(-1, -1, *found.patches.shape[2:])
        parts.append(F.interpolate(torch.cat([found.patches, cls], 1), scale_factor=4, mode="bilinear"))
    logits = torch.einsum("bdhw,kd->bkhw", torch.cat(parts, 1), head.conv_depth.weight[:, :, 0, 0])
    logits = torch.relu(logits + head.conv_depth.bias[:, None, None]) + 0.1
    centres = torch.from_numpy(np.linspace(head.nearest, head.farthest, 256))
    depth = (logits / logits.sum(1, keepdim=True) * centres[:, None, None]).sum(1, keepdim=True)
    return F.interpolate(depth.clamp(1e-3, 10), size, mode="bilinear")[:, 0]


@pytest.mark.parametrize("shapes", [[(2, 5, 3, 4)], [(2, 5, 3, 4)] * 4])
def test_the_head_convolves_first_and_gives_what_the_original_order_gives(shapes):
    read = maps(*shapes)
    head = DepthHead([11] * len(shapes), nearest=1e-3, farthest=10.0).double()
    found = head(read, (48, 60))
    torch.testing.assert_close(found, in_the_original_order(head, read, (48, 60)), atol=1e-6, rtol=1e-6)
    assert found.shape == (2, 48, 60) and float(found.min()) >= 1e-3 and float(found.max()) <= 10


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


@pytest.mark.parametrize("seed", range(10))
def test_the_loss_is_eigens_with_the_unbiased_variance_of_torch(seed: int):
    g = np.random.default_rng(seed)
    predicted, truth = g.uniform(0.1, 10, (3, 5, 7)), g.uniform(0.1, 10, (3, 5, 7))
    truth[g.random(truth.shape) < 0.3] = 0
    known = truth > 0
    e = np.log(predicted[known] + 1e-3) - np.log(truth[known] + 1e-3)
    tensors = torch.from_numpy(predicted), torch.from_numpy(truth)
    assert float(sig_loss(*tensors, step=100)) == pytest.approx(
        math.sqrt(e.var(ddof=1) + 0.15 * e.mean() ** 2)
    )
    assert float(sig_loss(*tensors, step=99)) == pytest.approx(math.sqrt(0.15 * e.mean() ** 2))


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


def measured_by_numpy(d: np.ndarray, gt: np.ndarray) -> dict[str, float]:
    inside = np.zeros(gt.shape, bool)
    inside[45:471, 41:601] = True
    assert inside.sum() == 426 * 560
    ok = inside & (gt > 1e-3) & (gt < 10)
    d, gt = d[ok], gt[ok]
    e = np.log(d) - np.log(gt)
    ratio = np.maximum(d / gt, gt / d)
    return {
        "rmse": np.sqrt(np.mean((d - gt) ** 2)),
        "abs_rel": np.mean(np.abs(d - gt) / gt),
        "sq_rel": np.mean((d - gt) ** 2 / gt),
        "log10": np.mean(np.abs(np.log10(d) - np.log10(gt))),
        "rmse_log": np.sqrt(np.mean(e**2)),
        "silog": 100 * np.sqrt(np.mean(e**2) - np.mean(e) ** 2),
        "d1": np.mean(ratio < 1.25),
        "d2": np.mean(ratio < 1.25**2),
        "d3": np.mean(ratio < 1.25**3),
    }


def test_measures_are_means_over_images_of_what_numpy_finds_in_the_eigen_crop():
    metrics, expected = DepthMetrics(NYU), []
    for seed in range(6):
        g = np.random.default_rng(seed)
        gt = g.uniform(0.5, 12, (480, 640)).astype(np.float32)
        gt[g.random(gt.shape) < 0.4] = 0
        d = (gt * np.exp(g.normal(0, 0.3, gt.shape)) + 0.1).astype(np.float32).clip(1e-3, 10)
        metrics.update(torch.from_numpy(d), torch.from_numpy(gt))
        expected.append(measured_by_numpy(d.astype(np.float64), gt.astype(np.float64)))
    found = {score.metric: score.value for score in metrics.scores()}
    assert next(iter(found)) == "rmse"
    for name in expected[0]:
        assert found[name] == pytest.approx(np.mean([e[name] for e in expected]), rel=1e-6), name


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
