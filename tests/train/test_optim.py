"""Schedules against closed forms, and which parameters decay."""

import math
from fractions import Fraction

import pytest
import torch

from unic.core.errors import ConfigError
from unic.method.types import Widths
from unic.models.config import LadderConfig, StudentConfig
from unic.models.student import build_student
from unic.train.optim import build_optimizer, cosine, learning_rate
from unic.train.recipe import OptimConfig

# 100 steps, 10 of them warm-up; peak 3e-4 * 512 / 256 = 6e-4.
CFG = OptimConfig(batch_size=512, epochs=20.0, warmup_epochs=2.0, lr=3e-4, min_lr=1e-6)
PER_EPOCH = 5


@pytest.mark.parametrize(
    ("step", "expected"),
    [
        (0, 6e-5),  # a tenth of the peak
        (4, 3e-4),
        (9, 6e-4),  # the last step of the warm-up
        (10, 6e-4),  # cos(0) = 1
        (40, 1e-6 + (6e-4 - 1e-6) * 0.75),  # a third of the way: (1 + cos 60 degrees) / 2
        (55, (6e-4 + 1e-6) / 2),  # half-way
        (70, 1e-6 + (6e-4 - 1e-6) * 0.25),
        (99, 1e-6 + (6e-4 - 1e-6) * math.sin(math.pi / 180) ** 2),  # (1 + cos 178 degrees) / 2
    ],
)
def test_learning_rate_rises_linearly_and_falls_along_a_half_cosine(step: int, expected: float):
    assert learning_rate(step, CFG, PER_EPOCH) == pytest.approx(expected, rel=1e-12)


def test_learning_rate_without_warm_up_starts_at_the_peak():
    cfg = OptimConfig(batch_size=256, epochs=2.0, warmup_epochs=0.0, lr=1e-3)
    assert learning_rate(0, cfg, 4) == pytest.approx(1e-3)


def test_warm_up_may_fill_the_whole_run():
    cfg = OptimConfig(batch_size=256, epochs=2.0, warmup_epochs=2.0, lr=1e-3)
    rates = [learning_rate(step, cfg, 4) for step in range(8)]
    assert rates == pytest.approx([1e-3 * k / 8 for k in range(1, 9)])


def test_rate_of_the_statistics_goes_from_one_to_a_thousandth():
    assert [cosine(step, 4, 1.0, 0.001) for step in range(5)] == pytest.approx(
        [1.0, 0.001 + 0.999 * (2 + math.sqrt(2)) / 4, 0.5005, 0.001 + 0.999 * (2 - math.sqrt(2)) / 4, 0.001]
    )


def test_peak_learning_rate_is_proportional_to_the_global_batch():
    peaks = [OptimConfig(batch_size=size).peak_lr for size in (128, 256, 1024)]
    assert peaks == pytest.approx([float(Fraction(3, 10_000) * f) for f in (Fraction(1, 2), 1, 4)])


@pytest.mark.parametrize(
    ("epochs", "per_epoch", "expected"), [(200.0, 2502, 500_400), (0.5, 6, 3), (0.01, 3, 1)]
)
def test_number_of_steps(epochs: float, per_epoch: int, expected: int):
    assert OptimConfig(epochs=epochs, warmup_epochs=0.0).num_steps(per_epoch) == expected


def test_matrices_decay_and_biases_norms_and_frozen_parameters_do_not():
    cfg = StudentConfig(model=None, image_size=16, width=8, depth=2, heads=2, patch_size=8)
    student = build_student(cfg, LadderConfig(hidden=8, last_hidden=8), {"t": Widths(4, 6)}, seed=0)
    names = {parameter: name for name, parameter in student.named_parameters()}
    decayed, plain = (
        {names[p]: group["weight_decay"] for p in group["params"]}
        for group in build_optimizer(student.named_parameters(), OptimConfig()).param_groups
    )
    assert set(decayed.values()) == {0.03} and set(plain.values()) == {0.0}
    model = "encoder.model."
    block = ("attn.qkv", "attn.proj", "mlp.fc1", "mlp.fc2")
    matrices = {f"{model}blocks.{b}.{layer}.weight" for b in (0, 1) for layer in block}
    matrices |= {
        f"ladder.heads.t.{kind}.{b}.layers.{n}.weight"
        for kind in ("cls", "patch")
        for b in (0, 1)
        for n in (0, 2)
    }
    matrices |= {f"{model}cls_token", f"{model}pos_embed", f"{model}patch_embed.proj.weight"}
    assert set(decayed) == matrices
    assert set(decayed) | set(plain) == set(names.values()) - {f"{model}norm.weight", f"{model}norm.bias"}


def test_one_step_is_that_of_adamw_with_the_published_settings():
    """Against the formulas of Loshchilov and Hutter (2019), algorithm 2, in float64."""
    cfg = OptimConfig(batch_size=256, lr=0.01)
    weight = torch.nn.Parameter(torch.tensor([[1.0, -2.0]]))
    bias = torch.nn.Parameter(torch.tensor([0.5]))
    optimizer = build_optimizer([("a.weight", weight), ("a.bias", bias)], cfg)
    gradients = [
        (torch.tensor([[0.3, -0.1]]), torch.tensor([2.0])),
        (torch.tensor([[-0.2, 0.4]]), torch.tensor([1.0])),
    ]
    expected = [weight.detach().double(), bias.detach().double()]
    m, v = [torch.zeros(1).double()] * 2, [torch.zeros(1).double()] * 2
    for t, step in enumerate(gradients, start=1):
        weight.grad, bias.grad = step
        optimizer.step()
        for i, decay in enumerate((0.03, 0.0)):
            g = step[i].double()
            m[i] = 0.9 * m[i] + 0.1 * g
            v[i] = 0.99 * v[i] + 0.01 * g * g
            update = (m[i] / (1 - 0.9**t)) / ((v[i] / (1 - 0.99**t)).sqrt() + 1e-8)
            expected[i] = expected[i] - 0.01 * (update + decay * expected[i])
    # float32 against float64
    torch.testing.assert_close(weight.detach().double(), expected[0], rtol=1e-6, atol=1e-7)
    torch.testing.assert_close(bias.detach().double(), expected[1], rtol=1e-6, atol=1e-7)


@pytest.mark.parametrize(
    "bad",
    [
        {"batch_size": 1},
        {"epochs": 0.0},
        {"epochs": float("nan")},
        {"epochs": 1.0, "warmup_epochs": 2.0},
        {"warmup_epochs": -1.0},
        {"lr": 0.0},
        {"lr": float("nan")},
        {"min_lr": 1.0},
        {"min_lr": -1e-9},
        {"weight_decay": -0.1},
        {"betas": (0.9, 1.0)},
        {"betas": (-0.1, 0.9)},
        {"max_grad_norm": 0.0},
    ],
)
def test_impossible_settings_are_refused_by_name(bad: dict):
    with pytest.raises(ConfigError, match="optim"):
        OptimConfig(**bad)
