"""The loss with its gradient written down, held to autograd of the definition in float64."""

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from unic.kernels.token_loss import fast_token_loss
from unic.method.config import LossConfig
from unic.method.losses import token_loss


def in_float64(output: Tensor, target: Tensor, cfg: LossConfig) -> Tensor:
    output, target = output.double(), target.double()
    lengths = output.norm(dim=-1).clamp(min=1e-8) * target.norm(dim=-1).clamp(min=1e-8)
    cosine = 1 - (output * target).sum(-1) / lengths
    return cfg.cosine * cosine + cfg.smooth_l1 * F.smooth_l1_loss(output, target, reduction="none").mean(-1)


def tokens(shape: tuple[int, ...], dtype: torch.dtype = torch.float32) -> tuple[Tensor, Tensor, Tensor]:
    """Output, target, and a gradient of the loss that is 0 for the second image."""
    g = torch.Generator().manual_seed(0)
    output, target = (torch.randn(shape, generator=g).mul(1.5) for _ in range(2))
    gradient = torch.rand(shape[:-1], generator=g)
    gradient[1] = 0
    return output.to(dtype).requires_grad_(), target, gradient


@pytest.mark.parametrize("shape", [(5, 24), (5, 7, 24), (3, 1, 1), (2, 3, 4, 5)])
@pytest.mark.parametrize("cfg", [LossConfig(), LossConfig(cosine=0.9, smooth_l1=0.0), LossConfig(cosine=0.0)])
def test_the_loss_and_its_gradient_are_those_of_the_definition(shape: tuple[int, ...], cfg: LossConfig):
    output, target, gradient = tokens(shape)
    wanted = in_float64(output, target, cfg)
    (wanted_gradient,) = torch.autograd.grad(wanted, output, gradient.double())
    loss = fast_token_loss(output, target, cfg)
    (found,) = torch.autograd.grad(loss, output, gradient)
    torch.testing.assert_close(loss.double(), wanted, rtol=1e-5, atol=1e-6)
    torch.testing.assert_close(found, wanted_gradient, rtol=1e-5, atol=1e-6)


def test_in_bf16_only_the_gradient_is_rounded():
    output, target, gradient = tokens((4, 6, 32), torch.bfloat16)
    loss, wanted = (form(output, target, LossConfig()) for form in (fast_token_loss, token_loss))
    assert loss.dtype == wanted.dtype == torch.float32
    torch.testing.assert_close(loss, wanted, rtol=1e-5, atol=1e-6)
    found, plain = (torch.autograd.grad(form, output, gradient)[0] for form in (loss, wanted))
    assert found.dtype == torch.bfloat16
    torch.testing.assert_close(found, plain, rtol=2**-7, atol=1e-6)


def test_tokens_without_length_have_the_finite_loss_and_gradient_of_the_definition():
    for length in (0.0, 1e-9):
        output = torch.full((2, 3, 5), length, requires_grad=True)
        target = torch.ones(2, 3, 5)
        target[0] = 0
        found, wanted = (form(output, target, LossConfig()) for form in (fast_token_loss, token_loss))
        torch.testing.assert_close(found, wanted)
        gradients = [torch.autograd.grad(loss.sum(), output)[0] for loss in (found, wanted)]
        torch.testing.assert_close(*gradients)


def test_what_is_not_finite_stays_so():
    output, target, gradient = tokens((3, 2, 4))
    target[0, 0, 0] = float("nan")
    loss = fast_token_loss(output, target, LossConfig())
    (found,) = torch.autograd.grad(loss, output, gradient)
    assert loss[0, 0].isnan() and loss[1:].isfinite().all() and found[0, 0].isnan().any()
