"""Weighted k-nearest-neighbour classification of features (DINO, arXiv:2104.14294, Sec. 4.1).

The k training images most similar to a test image vote for their labels, with weights exp(similarity / T).
Letters: M training images, Q test images, D width, C classes, K neighbours.
"""

import logging
from collections.abc import Iterator, Sequence

import torch
from jaxtyping import Float, Float32, Int64
from torch import Tensor

from unic.core.results import Result
from unic.evals.dataset_features import EvalData
from unic.evals.knn_search_fast import neighbour_search
from unic.evals.protocols.knn import KnnConfig
from unic.evals.read_splits import NUM_RANKED

log = logging.getLogger(__name__)

PROTOCOL = "knn-1"

_LOWER = 0xFFFFFFFF


def knn_results(data: EvalData, config: KnnConfig) -> list[Result]:
    """Top-1 and top-5 accuracy for each k, on the CLS tokens."""
    protocol = (
        PROTOCOL
        if config.temperature == KnnConfig.temperature
        else f"{PROTOCOL} temperature={config.temperature}"
    )
    train_labels = data.labels("train")
    named_ks = _possible_ks(config.ks, len(train_labels), data.name)
    ranked = knn_predict(
        data.features("train").to(data.device),
        train_labels.to(data.device),
        data.features("test").to(data.device),
        ks=list(named_ks.values()),
        temperature=config.temperature,
        num_classes=len(data.classes),
        chunk=config.chunk,
    )
    results = []
    for name, k in named_ks.items():
        for top in (1, NUM_RANKED):
            value = data.accuracy(ranked[k], top)
            results.append(data.result("knn", f"top{top}_{name}", value, protocol=protocol))
    return results


def knn_predict(
    train: Float[Tensor, "M D"],
    train_labels: Int64[Tensor, " M"],
    test: Float[Tensor, "Q D"],
    *,
    ks: Sequence[int],
    temperature: float,
    num_classes: int,
    chunk: int,
) -> dict[int, Int64[Tensor, "Q R"]]:
    """For each k, the classes of each test row from the most votes to the fewest: up to five, then -1.

    One pass serves every k. Among equal similarities the training row of smaller index is nearer, among equal
    votes the class of smaller index is first. Equal means equal but for rounding (sums are in float64), so
    neither `chunk` nor the device decides. A class without a vote is never named: DINO fills its top-5 with
    such classes in whatever order its sort leaves them, which can only add hits by chance.

    ks: each at most M.
    """
    assert max(ks) <= len(train), f"{max(ks)} neighbours of {len(train)} rows"
    ranked: dict[int, list[Tensor]] = {k: [] for k in ks}
    search = neighbour_search(train, max(ks), chunk)
    for queries in test.split(chunk):
        sims_QK, index_QK = search(queries)
        # The row's largest similarity is taken off: a common factor, and exp cannot overflow.
        weights_QK = ((sims_QK - sims_QK[:, :1]) / temperature).exp()
        for k, scores_QC in _votes(weights_QK, train_labels[index_QK], ks, num_classes):
            ranked[k].append(_ranking(scores_QC.float()))
    return {k: torch.cat(parts) for k, parts in ranked.items()}


def _votes(
    weights: Float[Tensor, "Q K"], labels: Int64[Tensor, "Q K"], ks: Sequence[int], num_classes: int
) -> Iterator[tuple[int, Float[Tensor, "Q C"]]]:
    """The sum of weights for each class, for each k; the same tensor, which grows between two k."""
    scores = weights.new_zeros(len(weights), num_classes)
    done = 0
    for k in sorted(set(ks)):
        for j in range(done, k):
            # One neighbour at a time: an index_add over all of them sums in no fixed order on a GPU.
            scores.scatter_add_(1, labels[:, j : j + 1], weights[:, j : j + 1])
        done = k
        yield k, scores


def _ranking(scores: Float32[Tensor, "Q C"]) -> Int64[Tensor, "Q R"]:
    """Score and class as one integer (a float that is not negative is ordered as its bits are): no two are equal."""
    classes = torch.arange(scores.shape[1], device=scores.device)
    packed = (scores.view(torch.int32).long() << 32) | (_LOWER - classes)
    best = packed.topk(min(NUM_RANKED, len(classes)), dim=1).values
    return torch.where(best >> 32 > 0, _LOWER - (best & _LOWER), -1)


def _possible_ks(ks: Sequence[int], num_train: int, dataset: str) -> dict[str, int]:
    """Those k for which there are enough training images, by the name they have in the metric."""
    possible = {f"k{k}": k for k in ks if k <= num_train}
    skipped = sorted(set(ks) - set(possible.values()))
    if skipped:
        log.warning("knn on %s: k = %s left out, only %d training images", dataset, skipped, num_train)
    return possible or {f"k{num_train}_all": num_train}
