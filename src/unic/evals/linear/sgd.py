"""Linear classifiers trained by stochastic gradient descent, many heads in one pass over the features.

The protocol of UNIC for large sets (its logreg_torch): momentum 0.9, weight decay on weight and bias, 100
epochs of batches of 1024, a half cosine. Heads differ in learning rate and decay only: they start from the
same weights and see the same batches, so each one is what it would be alone.
Letters: N rows, D width, K classes, H heads, B rows of a batch.
"""

import math
from collections.abc import Sequence
from typing import NamedTuple

import torch
import torch.nn.functional as F
from jaxtyping import Float, Int64
from torch import Tensor, nn

from unic.core import keyed_random

EPOCHS = 100
BATCH = 1024
MOMENTUM = 0.9


class Heads(NamedTuple):
    weight: Float[Tensor, "H K D"]
    bias: Float[Tensor, "H K"]
    finite: tuple[bool, ...]
    """False for a head whose loss became infinite or NaN: it keeps the weights it had then."""


def fit_heads(
    features: Float[Tensor, "N D"],
    labels: Int64[Tensor, " N"],
    num_classes: int,
    *,
    rates: Sequence[float],
    decays: Sequence[float],
    seed: int,
    epochs: int = EPOCHS,
    batch_size: int = BATCH,
) -> Heads:
    """Trains one head for each pair of learning rate and weight decay.

    seed: of the first weights and the order of the rows, new in each epoch.
    batch_size: the last batch of an epoch holds what is left; N when there are fewer rows.
    """
    device = features.device
    num_heads, width = len(rates), features.shape[1]
    rate = torch.tensor(rates, dtype=features.dtype, device=device)
    decay = torch.tensor(decays, dtype=features.dtype, device=device)[:, None]
    first = first_head(width, num_classes, seed)
    # One row of parameters for each head: the weight and, as the last column of each class, the bias.
    parameters = torch.cat([first.weight, first.bias[:, None]], 1).detach().to(device, features.dtype)
    parameters = parameters.flatten().expand(num_heads, -1).clone()
    velocity = torch.zeros_like(parameters)
    alive = torch.ones(num_heads, dtype=torch.bool, device=device)
    for epoch in range(epochs):
        order = torch.from_numpy(keyed_random.generator(seed, "evals.sgd", epoch).permutation(len(features)))
        now = (rate * rate_factor(epoch, epochs))[:, None]
        for rows in order.to(device).split(batch_size):
            losses_H, grad = _losses_and_gradient(parameters, features[rows], labels[rows], num_classes)
            alive = alive & losses_H.isfinite()
            velocity = MOMENTUM * velocity + grad + decay * parameters
            # `where`, not a product: a head that stopped may hold infinities.
            parameters = torch.where(alive[:, None], parameters - now * velocity, parameters)
        if not alive.any():
            break
    parameters = parameters.view(num_heads, num_classes, width + 1)
    return Heads(parameters[..., :-1], parameters[..., -1], tuple(alive.tolist()))


def rate_factor(epoch: int, epochs: int = EPOCHS) -> float:
    """Learning rate of an epoch over the first one's. The first two are equal and the last is not zero.

    The reference sets the rate after an epoch, from the number of the epoch that has just ended.
    """
    return 0.5 * (1 + math.cos(math.pi * max(epoch - 1, 0) / epochs))


def first_head(width: int, num_classes: int, seed: int) -> nn.Linear:
    """nn.Linear as torch initialises it."""
    with keyed_random.seeded_torch(seed, "evals.sgd"):
        return nn.Linear(width, num_classes)


def _losses_and_gradient(
    parameters: Float[Tensor, "H P"],
    features: Float[Tensor, "B D"],
    labels: Int64[Tensor, " B"],
    num_classes: int,
) -> tuple[Float[Tensor, " H"], Float[Tensor, "H P"]]:
    """Mean cross-entropy of each head, and its gradient, by two products for all heads."""
    num_heads, batch = len(parameters), len(features)
    inputs = F.pad(features, (0, 1), value=1.0)
    logits = inputs @ parameters.view(num_heads * num_classes, -1).T
    log_probs = logits.view(batch, num_heads, num_classes).log_softmax(2)
    true = labels[:, None, None].expand(batch, num_heads, 1)
    losses_H = -log_probs.gather(2, true).squeeze(2).mean(0)
    residuals = log_probs.exp_()
    residuals.scatter_add_(2, true, residuals.new_full((), -1.0).expand(true.shape))
    grad = residuals.view(batch, -1).T @ inputs / batch
    return losses_H, grad.view(num_heads, -1)
