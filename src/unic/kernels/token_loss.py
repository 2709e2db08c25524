"""The loss of tokens in few passes over the features: on an accelerator the definition, compiled; on a processor with
its gradient written down, one image at a time, with nothing as large as the features kept for the backward pass.

Letters: B images, N tokens of an image, E width.
"""

from collections.abc import Iterator
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from unic.core.torch_compile import compiled
from unic.method.config import LossConfig
from unic.method.losses import token_loss

# As in torch's cosine similarity.
_EPS = 1e-8


def fast_token_loss(
    output: Float[Tensor, "*B E"], target: Float[Tensor, "*B E"], cfg: LossConfig
) -> Float[Tensor, "*B"]:
    """`token_loss`; no gradient flows to the target."""
    if output.device.type != "cpu":
        return compiled(token_loss)(output, target, cfg)
    return _TokenLoss.apply(output, target, cfg.cosine, cfg.smooth_l1)


class _TokenLoss(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any,
        output: Float[Tensor, "*B E"],
        target: Float[Tensor, "*B E"],
        cosine: float,
        smooth_l1: float,
    ) -> Float[Tensor, "*B"]:
        loss, similarity, output_norm, target_norm = (
            torch.empty(output.shape[:-1], dtype=torch.float32, device=output.device) for _ in range(4)
        )
        for part in _parts(output):
            x, t = output[part].float(), target[part].float()
            output_norm[part] = x_norm = torch.linalg.vector_norm(x, dim=-1)
            target_norm[part] = t_norm = torch.linalg.vector_norm(t, dim=-1).clamp_(min=_EPS)
            similarity[part] = (x * t).sum(-1).div_(x_norm.clamp(min=_EPS)).div_(t_norm)
            away = x - t
            clamped = away.clamp(-1, 1)
            # Smooth L1 as clamped * (away - clamped / 2), its derivative being clamped.
            loss[part] = away.sub_(clamped, alpha=0.5).mul_(clamped).mean(-1)
        ctx.save_for_backward(output, target, similarity, output_norm, target_norm)
        ctx.weights = cosine, smooth_l1
        return loss.mul_(smooth_l1).add_(1 - similarity, alpha=cosine)

    @staticmethod
    def backward(ctx: Any, *gradients: Float[Tensor, "*B"]) -> tuple[Tensor | None, ...]:  # pyright: ignore[reportIncompatibleMethodOverride]
        output, target, similarity, output_norm, target_norm = ctx.saved_tensors
        cosine, smooth_l1 = ctx.weights
        (gradient,) = gradients
        # d similarity / dx = t / (|x| |t|) - similarity x / |x|^2. Torch bounds one |x| of the square, not the other.
        bounded = output_norm.clamp(min=_EPS)
        of_target = -cosine * gradient / (bounded * target_norm)
        of_output = (cosine * gradient * similarity / (bounded * output_norm)).where(output_norm > 0, 0)
        of_clamped = smooth_l1 / output.shape[-1] * gradient
        found = torch.empty_like(output)
        for part in _parts(output):
            if not gradient[part].any():  # teacher dropping left this image out
                found[part] = 0
                continue
            x, t = output[part].float(), target[part].float()
            away = (x - t).clamp_(-1, 1).mul_(of_clamped[part][..., None])
            away.addcmul_(t, of_target[part][..., None]).addcmul_(x, of_output[part][..., None])
            found[part] = away
        return found, None, None, None


def _parts(tokens: Float[Tensor, "*B E"]) -> Iterator[Any]:
    """One image's at a time, which stay in the cache from pass to pass; all of them where each is one token."""
    if tokens.ndim > 2:
        yield from range(len(tokens))
    else:
        yield ...
