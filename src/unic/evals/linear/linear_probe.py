"""A linear classifier on frozen features: what it is, how it is kept on disk, how its accuracy is reported.

logreg.py and logreg_fast.py say how one is found. Letters: M training images, Q others, D width, K classes.
"""

import dataclasses
import hashlib
import logging
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from jaxtyping import Float, Int64
from torch import Tensor

from unic.core.errors import DataError, WeightsError
from unic.core.results import Result
from unic.evals.artifact_cache import content_key, load_artifact, save_artifact
from unic.evals.dataset_features import EvalData
from unic.evals.linear.trainval_split import check_features, split_trainval
from unic.evals.protocols.logreg import LogregConfig
from unic.evals.read_splits import ranking

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class ProbeProblem:
    """What a solver gets: features in the form it expects, and labels that count without gaps.

    train, held_out: rows of the two parts of the features; together they are all rows, or all but those
      whose class has no other row to be learned from (only with `compat_split`).
    record: file for finished trials, or None.
    """

    features: Float[Tensor, "M D"]
    labels: Int64[Tensor, " M"]
    num_classes: int
    train: Int64[Tensor, " T"]
    held_out: Int64[Tensor, " V"]
    seed: int
    num_trials: int
    record: Path | None

    def held_out_accuracy(self, scores: Float[Tensor, "V K"]) -> float:
        """Top-1 on the held-out images, in percent."""
        return 100 * float((ranking(scores)[:, 0] == self.labels[self.held_out]).double().mean())


@dataclass(frozen=True)
class Classifier:
    """Scores of all classes of a data set; a class that had no training image scores -inf.

    unit_length: features are brought to length 1 first.
    settings: C, or rate and decay. held_out: top-1 in percent when they were chosen.
    """

    weight: Float[Tensor, "K D"]
    bias: Float[Tensor, " K"]
    unit_length: bool
    settings: dict[str, float]
    held_out: float

    def scores(self, features: Float[Tensor, "Q D"]) -> Float[Tensor, "Q K"]:
        """On the device of the features."""
        features = F.normalize(features, dim=1) if self.unit_length else features
        return features @ self.weight.to(features.device).T + self.bias.to(features.device)


@dataclass(frozen=True)
class Solver:
    """A way to find a classifier of a problem's classes. `protocol` and `protocol_large` change when its results do."""

    name: str
    protocol: str
    protocol_large: str
    solve: Callable[[ProbeProblem], Classifier]
    solve_large: Callable[[ProbeProblem], Classifier]


def fit_classifier(
    features: Float[Tensor, "M D"],
    labels: Int64[Tensor, " M"],
    num_classes: int,
    *,
    method: Solver,
    config: LogregConfig,
    seed: int,
    cache: Path | None = None,
) -> Classifier:
    """The classifier of one seed: settings chosen on held-out images, then learned from all images.

    features: on the device to compute on; labels anywhere. Labels may leave numbers below num_classes out.
    cache: folder for classifiers, used again for the same features, labels, method and settings; a search
      that was killed continues there.
    Raises DataError for features that are not finite, fewer than two classes, or nothing to hold out.
    """
    check_features(features, labels, num_classes)
    large = config.is_large(len(features))
    folder = None
    if cache is not None:
        facts = {
            "protocol": protocol(method, config, len(features)),
            "seed": seed,
            "num_classes": num_classes,
            "features": _sha256(features),
            "labels": _sha256(labels),
        }
        folder = cache / "classifiers" / content_key(facts)
        shape = (num_classes, features.shape[1])
        classifier = load_artifact(
            folder / "fitted", "a cached classifier is", partial(_read_classifier, shape=shape)
        )
        if classifier is not None:
            return classifier
    present, dense = labels.cpu().unique(return_inverse=True)
    train, held_out = split_trainval(dense, seed=seed, compat=config.compat_split)
    held_out = held_out[torch.isin(dense[held_out], dense[train])]
    if not len(held_out) or len(dense[train].unique()) < 2:
        raise DataError(
            f"{len(train)} images to learn from and {len(held_out)} to choose settings by, of "
            f"{len(dense[train].unique())} classes: too few; compat_split leaves less than the default split"
        )
    problem = ProbeProblem(
        F.normalize(features, dim=1) if large else features,
        dense.to(features.device),
        len(present),
        train.to(features.device),
        held_out.to(features.device),
        seed,
        config.num_trials,
        folder / "trials.jsonl" if folder else None,
    )
    fitted = (method.solve_large if large else method.solve)(problem)
    chosen = ", ".join(f"{name} {value:.3g}" for name, value in fitted.settings.items())
    log.info("%s: seed %d: %s, held-out top-1 %.2f %%", method.name, seed, chosen, fitted.held_out)
    weight = torch.zeros(num_classes, features.shape[1])
    bias = torch.full((num_classes,), -torch.inf)
    weight[present], bias[present] = fitted.weight.float().cpu(), fitted.bias.float().cpu()
    if folder is not None:
        facts = {"unit_length": large, "settings": fitted.settings, "held_out": fitted.held_out}
        save_artifact(folder / "fitted", "the classifier is", {"weight": weight, "bias": bias}, facts)
    return dataclasses.replace(fitted, weight=weight, bias=bias)


def protocol(method: Solver, config: LogregConfig, num_images: int) -> str:
    """The method's version, and every setting that is not the protocol's own."""
    parts = [method.protocol_large if config.is_large(num_images) else method.protocol]
    if config.num_trials != LogregConfig.num_trials:
        parts.append(f"trials={config.num_trials}")
    if config.compat_split:
        parts.append("compat_split")
    return " ".join(parts)


def report(data: EvalData, method: Solver, config: LogregConfig) -> list[Result]:
    """Top-1, top-5 and mean per-class accuracy on the test images, and for several seeds how they spread.

    Where only some classes count in the test set, also the top-1 among all classes.
    """
    train = data.features("train").to(data.device)
    test = data.features("test").to(data.device)
    accuracies = []
    for seed in config.seeds:
        classifier = fit_classifier(
            train,
            data.labels("train"),
            len(data.classes),
            method=method,
            config=config,
            seed=seed,
            cache=data.cache,
        )
        accuracies.append(data.accuracies(classifier.scores, test))
    name = protocol(method, config, len(train))
    if config.seeds != LogregConfig.seeds:
        name += f" seeds={','.join(map(str, config.seeds))}"
    results = []
    for metric in accuracies[0]:
        values = [of_seed[metric] for of_seed in accuracies]
        seed = config.seeds[0] if len(config.seeds) == 1 else None
        results.append(data.result(method.name, metric, float(np.mean(values)), protocol=name, seed=seed))
    if len(accuracies) > 1:
        for metric in accuracies[0]:
            spread = float(np.std([of_seed[metric] for of_seed in accuracies], ddof=1))
            results.append(
                data.result(method.name, f"{metric}_std", spread, protocol=name, higher_is_better=False)
            )
    return results


def _sha256(tensor: Tensor) -> str:
    array = np.ascontiguousarray(tensor.cpu().numpy())
    return hashlib.sha256(array.view(np.uint8).data).hexdigest() + str(tuple(array.shape))


def _read_classifier(tensors: dict[str, Tensor], facts: Any, shape: tuple[int, int]) -> Classifier:
    weight, bias = tensors["weight"], tensors["bias"]
    if weight.shape != shape or bias.shape != shape[:1]:
        raise WeightsError(f"weight {tuple(weight.shape)}, expected {shape}")
    return Classifier(weight, bias, facts["unit_length"], facts["settings"], facts["held_out"])
