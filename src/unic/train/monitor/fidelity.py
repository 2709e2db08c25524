"""How much of its teachers the student has, measured while it is trained, on images that stay the same.

Nothing here moves weights, statistics or a random generator: a run with it and one without have the same bits.
Letters: B images of a batch, N images of the fixed set, M tokens, P patches of an image, D E widths, S sums.
"""

import logging
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float, Float64, Int64
from torch import Tensor

from unic.core import distributed, keyed_random
from unic.data.sources import Sources
from unic.method.representation_metrics import effective_rank
from unic.method.types import Batch, Pixels, Tokens
from unic.models.student import Student
from unic.train.build_run import RunContext
from unic.train.checkpoint import TrainState
from unic.train.train_step import autocast

log = logging.getLogger(__name__)

# Most bytes of teachers' features that a process keeps, in the memory of the host; the rest is computed again each
# time. 256 images of UNIC-B's four teachers are 0.6 GB in float32, shared by all processes.
_MAX_KEPT = 2**30

# So many images of a class are chosen in a row: of a thousand classes too, an image then has neighbours of its own.
_OF_A_CLASS = 8

# Patches of an image that the effective rank is taken of: 2,048 of 256 images, more than a student is wide.
_PATCHES_OF_AN_IMAGE = 8

# As `unic evaluate` has them: DINO's (arXiv:2104.14294, Sec. 4.1).
_NEIGHBOURS, _TEMPERATURE = 20, 0.07


class Fidelity:
    """Looks at a run's student every `log.fidelity_every` epochs and at the end; keeps what stays the same."""

    def __init__(self, context: RunContext):
        every = context.recipe.log.fidelity_every
        self._context = context
        self._every = max(1, round(every * context.steps_per_epoch)) if every else None
        self._fixed: _Fixed | None = None
        self._kept: dict[int, dict[str, Tokens]] = {}
        self._bytes_kept = 0
        self._knn_of_teachers: dict[str, float] = {}

    def due(self, step: int) -> bool:
        return self._every is not None and (step % self._every == 0 or step == self._context.num_steps)

    def measure(self, state: TrainState) -> dict[str, float]:
        """Metrics by name, on the main process; nothing on the others, which have to call it too.

        "fidelity/<teacher>/<cls|patches>/explained": share of the variance of the teacher's standardised tokens that
          the ladder's output explains, at most 1; and ".../cosine": their mean cosine similarity.
        "fidelity/rank/<cls|patches>": effective rank of the student's own tokens, those of the released encoder.
        "fidelity/knn", "fidelity/<teacher>/knn": accuracy of k-NN on CLS in %, where images lie in folders of classes.
        """
        started, first = time.monotonic(), self._fixed is None
        fixed = self._fixed = self._fixed or distributed.run_on_all_ranks(lambda: _read(self._context))
        sums, rows = self._look(state, fixed, with_teachers=first and fixed.labels is not None)
        if not distributed.is_main():
            return {}
        seen = rows.pop("seen").cpu() > 0  # unreadable images were named in the log
        record = self._record(sums, {name: x.cpu()[seen] for name, x in rows.items()}, fixed, seen)
        if first:
            log.info(
                "fidelity every %d steps, on %d %s; %.1f s the first time", self._every, int(seen.sum()),
                "images of data.val_root" if self._context.validation else "training images (data.val_root is empty)",
                time.monotonic() - started,
            )  # fmt: skip
        return record

    @torch.no_grad()
    def _look(
        self, state: TrainState, fixed: "_Fixed", *, with_teachers: bool
    ) -> tuple[dict[str, Float64[Tensor, " S"]], dict[str, Tensor]]:
        """Sums of every comparison, and what each image's tokens are; of all processes.

        The rows (N, ...) are "seen", "cls" and "patches" of the student, and perhaps CLS of "teacher <name>".
        """
        context, device, num_images = self._context, self._context.device, len(fixed.chosen)
        sums = {
            f"{name}/{token}": torch.zeros(4 + width, dtype=torch.float64, device=device)
            for name, widths in context.teachers.dims.items()
            for token, width in zip(("cls", "patches"), widths, strict=True)
        }
        dim, num_places = state.student.encoder.dim, fixed.places.shape[1]
        shapes: dict[str, tuple[int, ...]] = {"seen": (), "cls": (dim,), "patches": (num_places, dim)}
        if with_teachers:
            shapes |= {f"teacher {name}": (widths.cls,) for name, widths in context.teachers.dims.items()}
        rows = {name: torch.zeros(num_images, *shape, device=device) for name, shape in shapes.items()}
        state.student.eval()
        for number, batch in enumerate(fixed.batches):
            batch = batch.to(device)
            with autocast(context):
                features = self._features(number, batch)
                own, outputs = student_tokens(state.student, batch.images)
            places = fixed.places.to(device)[batch.index][:, :, None].expand(-1, -1, dim)
            rows["seen"][batch.index] = 1.0
            rows["cls"][batch.index] = own.cls.float()
            rows["patches"][batch.index] = own.patches.float().gather(1, places)
            for name, tokens in features.items():
                target, output = state.standardizers[name](tokens), outputs[name]
                sums[f"{name}/cls"] += comparison(output.cls, target.cls)
                sums[f"{name}/patches"] += comparison(
                    output.patches.flatten(0, 1), target.patches.flatten(0, 1)
                )
                if with_teachers:
                    rows[f"teacher {name}"][batch.index] = tokens.cls.float()
        state.student.train()
        for tensor in (*sums.values(), *rows.values()):
            distributed.all_reduce_(tensor)
        return sums, rows

    def _features(self, number: int, batch: Batch) -> dict[str, Tokens]:
        """The teachers' features as they are before standardising, whose statistics move."""
        if number in self._kept:
            return {name: tokens.to(self._context.device) for name, tokens in self._kept[number].items()}
        features = self._context.teachers(batch)
        size = sum(x.nbytes for tokens in features.values() for x in (tokens.cls, tokens.patches))
        if self._bytes_kept + size <= _MAX_KEPT:
            self._bytes_kept += size
            self._kept[number] = {name: tokens.to(torch.device("cpu")) for name, tokens in features.items()}
        return features

    def _record(
        self,
        sums: dict[str, Float64[Tensor, " S"]],
        rows: dict[str, Tensor],
        fixed: "_Fixed",
        seen: Bool[Tensor, " N"],
    ) -> dict[str, float]:
        if not seen.any():
            log.warning("fidelity cannot be measured: none of its %d images can be read", len(seen))
            return {}
        record = {}
        for name, values in sums.items():
            explained, cosine = explained_and_cosine(values)
            record |= {f"fidelity/{name}/explained": explained, f"fidelity/{name}/cosine": cosine}
        record["fidelity/rank/cls"] = _rank(rows["cls"])
        record["fidelity/rank/patches"] = _rank(rows["patches"].flatten(0, 1))
        if fixed.labels is not None and seen.sum() > 1:
            labels = torch.from_numpy(fixed.labels)[seen]
            self._knn_of_teachers |= {
                name.removeprefix("teacher "): knn_accuracy(x, labels)
                for name, x in rows.items()
                if name.startswith("teacher ")
            }
            record["fidelity/knn"] = knn_accuracy(rows["cls"], labels)
            record |= {f"fidelity/{name}/knn": value for name, value in self._knn_of_teachers.items()}
        return record


def student_tokens(student: Student, images: Pixels) -> tuple[Tokens, dict[str, Tokens]]:
    """What the released encoder says, and the ladder's outputs, from one pass of a student in eval mode."""
    blocks = student.encoder.block_outputs(images)
    norm = student.encoder.model.norm
    return Tokens(norm(blocks[-1].cls), norm(blocks[-1].patches)), student.project(blocks)


def comparison(output: Float[Tensor, "M E"], target: Float[Tensor, "M E"]) -> Float64[Tensor, " S"]:
    """Sums over tokens, so that batches and processes simply add up: their number, squared error, cosine, the
    target's squares, and the target itself.
    """
    output, target = output.double(), target.double()
    totals = (
        target.new_tensor(len(target)),
        (target - output).square().sum(),
        F.cosine_similarity(output, target, dim=-1).sum(),
        target.square().sum(),
    )
    return torch.cat([torch.stack(totals), target.sum(0)])


def explained_and_cosine(sums: Float64[Tensor, " S"]) -> tuple[float, float]:
    """Share of the target's variance explained (`feature_metrics.explained_variance`), and mean cosine similarity."""
    sums = sums.cpu()
    count, missed, cosine, squares = sums[:4].tolist()
    total = squares - (sums[4:].square().sum() / count).item()
    if total <= 1e-12 * squares:  # a constant target: the difference is rounding
        return float(missed == 0), cosine / count
    return 1 - missed / total, cosine / count


def knn_accuracy(features: Float[Tensor, "N D"], labels: Int64[Tensor, " N"]) -> float:
    """Top-1 accuracy, in %, of k-NN that leaves the image itself out; all others vote, weighted, up to 20 of them."""
    unit = F.normalize(features.double(), dim=-1)
    similarity = (unit @ unit.T).fill_diagonal_(-torch.inf)
    nearest = similarity.topk(min(_NEIGHBOURS, len(labels) - 1))
    weights = ((nearest.values - nearest.values[:, :1]) / _TEMPERATURE).exp()
    votes = (weights[:, :, None] * F.one_hot(labels)[nearest.indices]).sum(1)
    return 100 * (votes.argmax(1) == labels).double().mean().item()


def choose_images(
    num_images: int, classes: Sequence[str] | None, count: int, seed: int
) -> Int64[np.ndarray, " N"]:
    """Up to `count` positions, ascending, by key.

    classes: of each image; then 8 of each class are taken in a drawn order of classes, and again from the first.
    """
    draw = keyed_random.generator(seed, "fidelity images")
    order = draw.permutation(num_images)
    if classes is not None:
        names, labels = np.unique(np.array(classes), return_inverse=True)
        place_of_class = draw.permutation(len(names))[labels[order]]
        by_class = np.argsort(place_of_class, kind="stable")
        starts = np.searchsorted(place_of_class[by_class], place_of_class[by_class])
        turn = (np.arange(num_images) - starts) // _OF_A_CLASS
        order = order[by_class][np.argsort(turn, kind="stable")]
    return np.sort(order[:count])


def folder_classes(sources: Sources, roots: Sequence[str]) -> list[str] | None:
    """The folder below its root that each image lies in; None where some lie elsewhere, or all in the same one."""
    if not all(Path(root).expanduser().is_dir() for root in roots):
        return None
    below = [path[len(part.root.rstrip("/")) + 1 :] for part in sources.parts for path in part.paths]
    if not all("/" in path for path in below):
        return None
    classes = [path.partition("/")[0] for path in below]
    return classes if len(set(classes)) > 1 else None


@dataclass(frozen=True)
class _Fixed:
    """The images that are looked at. batches: this process's share, with positions among those chosen as `index`."""

    chosen: Int64[np.ndarray, " N"]
    labels: Int64[np.ndarray, " N"] | None
    places: Int64[Tensor, "N P"]
    """Patches of each image whose effective rank is taken."""
    batches: list[Batch]


def _read(context: RunContext) -> _Fixed:
    cfg = context.recipe
    sources, roots = (
        (context.validation, cfg.data.val_root) if context.validation else (context.sources, cfg.data.root)
    )
    classes = folder_classes(sources, roots)
    chosen = choose_images(len(sources), classes, cfg.log.fidelity_images, cfg.seed)
    paths = sources.paths()
    batches = context.plain_batches([paths[position] for position in chosen])
    num_patches = context.teachers.grid[0] * context.teachers.grid[1]
    draws = keyed_random.generator(cfg.seed, "fidelity patches").random((len(chosen), num_patches))
    labels = None if classes is None else np.unique(np.array(classes)[chosen], return_inverse=True)[1]
    return _Fixed(chosen, labels, torch.from_numpy(draws.argsort(1)[:, :_PATCHES_OF_AN_IMAGE]), list(batches))


def _rank(features: Float[Tensor, "M D"]) -> float:
    return effective_rank(features) if features.isfinite().all() else torch.nan
