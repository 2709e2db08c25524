"""A dense evaluation from its task to its results: a head is read, found in the cache or learned, then tested."""

import logging
from pathlib import Path

from torch import nn

from unic.core import keyed_random
from unic.core.errors import DataError
from unic.core.files import file_sha256, write_json
from unic.core.progress import with_progress
from unic.core.results import Result
from unic.data.decode import read_pixels
from unic.data.dense.read_annotations import size_of
from unic.evals.dataset_features import EvalData
from unic.evals.dense.head_cache import train_or_load_head
from unic.evals.dense.prediction_images import panels_of, write_panel, written_or_warned
from unic.evals.dense.task import DenseTask
from unic.evals.registry import EvalOptions
from unic.models.weights import read_weights

log = logging.getLogger(__name__)


def run_dense(task: DenseTask, data: EvalData, options: EvalOptions) -> list[Result]:
    """The task's scores over all test images, under a protocol that names all that differs from the published one."""
    if options.head is not None:
        head, folder = task.read_head(read_weights(options.head), str(options.head)).to(data.device), None
    else:
        with keyed_random.seeded_torch(task.config.seed, f"{task.name} head"):
            head = task.make_head().to(data.device)
        what = f"{task.backbone.encoder.name}  {data.name}"
        folder = train_or_load_head(head, task, workers=options.workers, cache=data.cache, what=what)
    _test(head, task, data, folder)
    protocol = protocol_of(task, options.head)
    return [
        data.result(
            task.name,
            score.metric,
            score.value,
            unit=score.unit,
            higher_is_better=score.higher_is_better,
            protocol=protocol,
            seed=task.config.seed,
        )
        for score in task.metrics.scores()
    ]


def protocol_of(task: DenseTask, head: Path | None) -> str:
    """The protocol, and after it every setting that is not the published one.

    head: the file it is read from; None: it is learned here.
    """
    config = task.config
    # Every task has defaults for all.
    default = type(config)()  # pyright: ignore[reportCallIssue]
    words = [task.protocol]
    if head is not None:
        words.append(f"head={file_sha256(head)[:12]}")
    elif config.mode == "fast":
        words.append(f"fast views={config.views} {config.bits}")
    for name in task.learned if head is None else task.given:
        value = getattr(config, name)
        if value != getattr(default, name):
            words.append(f"{name}={','.join(map(str, value)) if isinstance(value, tuple) else value}")
    if head is None:
        words += [f"{name}={getattr(config, name)}" for name in task.always_learned]
    return " ".join(words)


def _test(head: nn.Module, task: DenseTask, data: EvalData, folder: Path | None) -> None:
    """Adds all test images to the task's metrics; writes some of them beside their truth and prediction.

    folder: the head's in the cache, beside which the panels go.
    """
    images, name = data.test, task.backbone.encoder.name
    assert images.maps is not None, "read_splits gives dense tasks images with maps"
    panels, shown = panels_of(task.config, folder, len(images))
    pairs = list(zip(images.paths, images.maps, strict=True))
    what = f"{name}  {data.name} test"
    for number, (image, truth_file) in enumerate(with_progress(pairs, len(pairs), what)):
        pixels = read_pixels(image)
        truth = task.read_truth(truth_file, size_of(pixels))
        predicted = task.predict(pixels, head)
        try:
            task.metrics.update(predicted, truth)
        except DataError as error:
            raise DataError(f"{truth_file}: {error}") from error
        if number in shown:
            pictures = [pixels.permute(1, 2, 0).numpy()]  # (3, H, W) -> (H, W, 3)
            pictures += [task.colours(part.cpu()) for part in (truth, predicted)]
            write_panel(panels / f"{name}-{Path(image).stem}.png", pictures)
    if shown:
        if details := task.metrics.details():
            with written_or_warned(panels / f"{name}.json") as path:
                write_json(path, details)
        log.info("%s: images, truth and predictions side by side in %s", what, panels)
