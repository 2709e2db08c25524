"""The losses against a derivation in float64 NumPy, and their properties."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from reference_loss import reference_token_loss

from unic.core.errors import ConfigError
from unic.method.config import LossConfig
from unic.method.losses import teacher_losses, token_loss
from unic.method.types import Tokens


def random_tokens(rng: np.random.Generator, b: int, n: int, widths: tuple[int, ...]) -> dict[str, Tokens]:
    return {
        f"teacher{i}": Tokens(
            torch.tensor(rng.normal(0, 2, (b, e)), dtype=torch.float32),
            torch.tensor(rng.normal(0, 2, (b, n, e)), dtype=torch.float32),
        )
        for i, e in enumerate(widths)
    }


@settings(max_examples=25, deadline=None)
@given(st.integers(0, 10_000), st.integers(1, 4), st.integers(1, 5), st.booleans(), st.booleans())
def test_teacher_losses_equal_the_definition_in_float64(seed: int, b: int, n: int, cls: bool, patches: bool):
    if not (cls or patches):
        cls = True
    rng = np.random.default_rng(seed)
    cfg = LossConfig(cosine=0.3, smooth_l1=0.7, cls=cls, patches=patches)
    outputs, targets = (random_tokens(rng, b, n, (3, 7)) for _ in range(2))
    losses = teacher_losses(outputs, targets, cfg)
    for t, name in enumerate(targets):
        out, tgt = outputs[name], targets[name]
        for i in range(b):
            of_cls = reference_token_loss(out.cls[i], tgt.cls[i], cfg)
            of_patches = np.mean(
                [reference_token_loss(out.patches[i, j], tgt.patches[i, j], cfg) for j in range(n)]
            )
            used = [value for value, on in ((of_cls, cls), (of_patches, patches)) if on]
            # float32 sums of at most 7 products of order 10
            np.testing.assert_allclose(losses.cls_TB[t, i], of_cls, rtol=1e-4, atol=1e-5)
            np.testing.assert_allclose(losses.patches_TB[t, i], of_patches, rtol=1e-4, atol=1e-5)
            np.testing.assert_allclose(losses.total_TB[t, i], np.mean(used), rtol=1e-4, atol=1e-5)


def test_equal_tokens_have_no_loss_and_opposite_ones_the_most_cosine_loss():
    x = torch.randn(4, 6, generator=torch.Generator().manual_seed(0))
    torch.testing.assert_close(token_loss(x, x, LossConfig()), torch.zeros(4), atol=1e-6, rtol=0)
    only_cosine = LossConfig(cosine=1.0, smooth_l1=0.0)
    torch.testing.assert_close(token_loss(x, -x, only_cosine), torch.full((4,), 2.0))


def test_a_zero_vector_has_a_finite_loss_and_gradient():
    output = torch.zeros(1, 5, requires_grad=True)
    loss = token_loss(output, torch.ones(1, 5), LossConfig()).sum()
    loss.backward()
    assert torch.isfinite(loss) and torch.isfinite(output.grad).all()


def test_gradients_of_the_loss_are_right():
    g = torch.Generator().manual_seed(0)
    target = torch.randn(3, 5, generator=g)
    output = torch.randn(3, 5, generator=g, requires_grad=True)
    token_loss(output, target, LossConfig()).sum().backward()
    step = 1e-3  # central differences in float32 of a float32 function: three digits
    for i in range(3):
        for j in range(5):
            shift = torch.zeros(3, 5)
            shift[i, j] = step
            with torch.no_grad():
                up, down = (token_loss(output + s * shift, target, LossConfig()).sum() for s in (1, -1))
            torch.testing.assert_close(output.grad[i, j], (up - down) / (2 * step), atol=2e-3, rtol=0)


def test_bf16_inputs_are_compared_in_float32():
    x = torch.randn(8, 64, generator=torch.Generator().manual_seed(0))
    low = token_loss(x.bfloat16(), (x + 1).bfloat16(), LossConfig())
    assert low.dtype == torch.float32
    high = token_loss(x.bfloat16().float(), (x + 1).bfloat16().float(), LossConfig())
    torch.testing.assert_close(low, high, atol=0, rtol=0)


@pytest.mark.parametrize(
    "values",
    [
        {"cls": False, "patches": False},
        {"cosine": -1.0},
        {"cosine": 0.0, "smooth_l1": 0.0},
        {"drop_prob": 1.0},
    ],
)
def test_a_loss_that_cannot_work_is_refused(values: dict):
    with pytest.raises(ConfigError, match="loss"):
        LossConfig(**values)
