"""How much faster `logreg-fast` is than `logreg`, side by side in one run, and how far their answers differ.

    python benchmarks/logreg.py --images /data/cifar10 --shapes pets dtd --exact-trials 8

Problems have the shape of small transfer sets. With --images (train/CLASS/*, test/CLASS/*) features are
EfficientNet-Lite0's, and each class is cut into finer ones by k-means on EfficientNet-Lite1's features; without,
they are Gaussian clusters. logreg solves every n-th of the trials that logreg-fast made (all with
--exact-trials 40) and the last fit; its time for all of them is scaled from these. Other work on the machine
disturbs both: only the ratios mean something, and those of processor time the most.
"""

import dataclasses
import json
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import optuna
import scipy
import sklearn
import threadpoolctl
import torch
import tyro
from common import machine, report, timed
from sklearn.cluster import KMeans
from torch import Tensor

import unic
from unic.core.cache_dir import cache_dir
from unic.data.folders import read_image_folder
from unic.evals.features import extract
from unic.evals.linear import lbfgs
from unic.evals.linear.linear_probe import fit_classifier
from unic.evals.linear.trainval_split import split_trainval
from unic.evals.logreg import scikit_learn
from unic.evals.logreg_fast import FAST
from unic.evals.protocols.logreg import LogregConfig
from unic.evals.registry import EvalOptions

SHAPES = {"pets": (3680, 37), "flowers": (2040, 102), "dtd": (3760, 47), "aircraft": (6667, 100)}
NUM_TEST = 5000
WIDTH = 1280


@dataclass(frozen=True, kw_only=True)
class Options:
    images: Path | None = None
    shapes: tuple[str, ...] = tuple(SHAPES)
    exact_trials: int = 8
    threads: int = 1
    out: Path | None = None
    """Folder for one JSON file of the numbers."""


def main(options: Options) -> None:
    torch.set_num_threads(options.threads)
    threadpoolctl.threadpool_limits(options.threads)  # stays until the end of the process
    about = {
        **machine(),
        "versions": {m.__name__: m.__version__ for m in (sklearn, scipy, np, optuna)},
        "features": "efficientnet_lite0, 96 px" if options.images else "Gaussian clusters",
    }
    pool = image_features(options.images) if options.images else None
    rows = []
    for shape in options.shapes:
        num_train, num_classes = SHAPES[shape]
        problem = finer(pool, num_classes) if pool else clusters(num_train, num_classes)
        rows.append({"shape": shape, **compare(*problem, num_train, num_classes, options.exact_trials)})
        report(about | {"rows": rows}, options.out, "logreg")


def compare(
    train: Tensor,
    labels: Tensor,
    test: Tensor,
    test_labels: Tensor,
    num_train: int,
    num_classes: int,
    count: int,
) -> dict[str, Any]:
    rows = torch.from_numpy(np.random.default_rng(0).permutation(len(train))[:num_train])
    features, labels = train[rows], labels[rows]
    with tempfile.TemporaryDirectory() as folder:
        fast, wall, processor = timed(
            lambda: fit_classifier(
                features, labels, num_classes, method=FAST, config=LogregConfig(), seed=22, cache=Path(folder)
            )
        )
        (record,) = Path(folder).rglob("trials.jsonl")
        trials = [json.loads(line) for line in record.read_text().splitlines()]
    learn, held_out = split_trainval(labels, seed=22)
    chosen = trials[:: max(1, len(trials) // count)]
    exact_wall, exact_processor, differences, excess = 0.0, 0.0, [], []
    axes = lbfgs.Axes.of(features[learn])
    for trial in chosen:
        C = trial["params"]["C"]
        (weight, bias), seconds, processor_seconds = timed(
            lambda C=C: scikit_learn(features[learn], labels[learn], num_classes, C)
        )
        exact_wall += seconds * len(trials) / len(chosen)
        exact_processor += processor_seconds * len(trials) / len(chosen)
        differences.append(top1(features[held_out] @ weight.T + bias, labels[held_out]) - trial["value"])
        point = lbfgs.Point(*axes.back(*lbfgs.solve(axes.to(features[learn]), labels[learn], num_classes, C)))
        ours, theirs = (
            lbfgs.objective(
                lbfgs.Point(p.weight.double(), p.bias.double().clamp_min(-1e6)),
                features[learn].double(),
                labels[learn],
                C,
            )
            for p in (point, lbfgs.Point(weight, bias))
        )
        excess.append(ours - theirs)
    C = fast.settings["C"]
    (weight, bias), seconds, processor_seconds = timed(lambda: scikit_learn(features, labels, num_classes, C))
    exact_wall, exact_processor = exact_wall + seconds, exact_processor + processor_seconds
    fast_top1 = top1(fast.scores(test), test_labels)
    return {
        "ratio_wall": round(exact_wall / wall, 1),
        "ratio_processor": round(exact_processor / processor, 1),
        "exact_trials": len(chosen),
        "C": C,
        "test_top1_fast": fast_top1,
        "test_top1_exact_same_C": top1(test @ weight.T + bias, test_labels),
        "held_out_differences": [round(d, 3) for d in differences],
        "largest_objective_fast_minus_exact": max(excess),
        "seconds_fast": round(wall, 2),
        "seconds_exact": round(exact_wall, 1),
    }


def top1(scores: Tensor, labels: Tensor) -> float:
    return 100 * float((scores.argmax(1) == labels).double().mean())


def image_features(root: Path) -> dict[tuple[str, str], Tensor]:
    """Features of up to 1,400 training and 500 test images of each class, by two encoders; kept by unic."""
    pool: dict[tuple[str, str], Tensor] = {}
    for split, count in (("train", 1400), ("test", 500)):
        images = read_image_folder(root, split)
        labels = images.labels
        assert labels is not None
        rows = np.concatenate([np.flatnonzero(labels == c)[:count] for c in range(labels.max() + 1)])
        images = dataclasses.replace(images, paths=tuple(images.paths[i] for i in rows), labels=labels[rows])
        pool[split, "labels"] = torch.from_numpy(labels[rows])
        for name in ("efficientnet_lite0", "efficientnet_lite1"):
            encoder = unic.load(f"{name}?image_size=96")
            (features,) = extract(
                [encoder], images, EvalOptions(), device=torch.device("cpu"), cache_root=cache_dir()
            )
            pool[split, name] = features["cls"]
    return pool


def finer(pool: dict[tuple[str, str], Tensor], num_classes: int) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Training features, labels, test features, labels; each class cut into nearly equal numbers of parts."""
    features = torch.cat([pool["train", "efficientnet_lite1"], pool["test", "efficientnet_lite1"]])
    coarse = torch.cat([pool["train", "labels"], pool["test", "labels"]])
    labels, first = torch.zeros_like(coarse), 0
    for c in range(int(coarse.max()) + 1):
        parts = (num_classes - first) // (int(coarse.max()) + 1 - c)
        found = KMeans(parts, max_iter=20, random_state=0).fit_predict(features[coarse == c].numpy())
        labels[coarse == c] = torch.from_numpy(found).long() + first
        first += parts
    cut = len(pool["train", "labels"])
    return pool["train", "efficientnet_lite0"], labels[:cut], pool["test", "efficientnet_lite0"], labels[cut:]


def clusters(num_train: int, num_classes: int) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Overlapping Gaussian clusters; variance falls from one axis to the next, as in real features."""
    rng = np.random.default_rng(0)
    axes = (1 + np.arange(WIDTH)) ** -0.5
    centres = rng.normal(size=(num_classes, WIDTH)) * axes
    labels = rng.integers(0, num_classes, num_train + NUM_TEST)
    features = (centres[labels] + 1.5 * rng.normal(size=(len(labels), WIDTH)) * axes).astype(np.float32)
    x, y = torch.from_numpy(features), torch.from_numpy(labels)
    return x[:num_train], y[:num_train], x[num_train:], y[num_train:]


if __name__ == "__main__":
    main(tyro.cli(Options))
