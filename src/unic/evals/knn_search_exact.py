"""What the nearest neighbours of an image are: those of largest cosine similarity, ties by row. The definition.

`knn_search_fast` finds the same ones sooner. Letters: M rows (training images), Q queries, D width.
"""

import torch
import torch.nn.functional as F
from jaxtyping import Float, Int64
from torch import Tensor

GRID = 2.0**-30
"""Similarities are equal when they round to the same multiple of this; float64 sums are far more exact."""

_LOWER = 0xFFFFFFFF


def nearest(
    queries: Float[Tensor, "Q D"], rows: Float[Tensor, "M D"], k: int, chunk: int
) -> tuple[Float[Tensor, "Q k"], Int64[Tensor, "Q k"]]:
    """The k largest cosine similarities of each query, and their rows; by similarity, then by row.

    Similarities that differ only by rounding become equal, on GRID.

    chunk: rows compared at a time; memory is about 40 bytes times this times Q.
    """
    exact = exact_dtype(rows.device)
    unit_queries = F.normalize(queries.to(exact), dim=1)
    best = torch.empty(len(queries), 0, dtype=torch.int64, device=queries.device)
    for start in range(0, len(rows), chunk):
        part = F.normalize(rows[start : start + chunk].to(exact), dim=1)
        index = torch.arange(start, start + len(part), device=rows.device)
        candidates = torch.cat([best, pack(unit_queries @ part.T, index)], dim=1)
        best = candidates.topk(min(k, candidates.shape[1]), dim=1).values
    sims, index = unpack(best)
    return sims.to(exact), index


def pack(sims: Float[Tensor, "*Q"], index: Int64[Tensor, "*#Q"]) -> Int64[Tensor, "*Q"]:
    """A similarity, in steps of GRID, and its row as one integer: larger is more similar, then of smaller row.

    No two are equal, and so it does not matter that `topk` takes ties in any order.
    """
    return ((sims / GRID).round().long() << 32) | (_LOWER - index)


def unpack(packed: Int64[Tensor, "*Q"]) -> tuple[Float[Tensor, "*Q"], Int64[Tensor, "*Q"]]:
    return (packed >> 32).to(exact_dtype(packed.device)) * GRID, _LOWER - (packed & _LOWER)


def exact_dtype(device: torch.device) -> torch.dtype:
    """float64, so that rounding decides no neighbour; float32 on a device without it."""
    try:
        torch.zeros(1, dtype=torch.float64, device=device)
    except (TypeError, RuntimeError):
        return torch.float32
    return torch.float64
