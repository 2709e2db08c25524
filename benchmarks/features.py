"""What sharing the decoding of images, and keeping features, is worth: ratios measured side by side in one run.

    python benchmarks/features.py --images /data/imagenet/val --num-images 512

(a) three encoders together, against one after the other; (b) features from the cache, against computing them. The
networks are timm's with random weights, whose speed is that of trained ones. Rounds alternate, and the median is what
counts: other work on the machine disturbs both sides alike, so only the ratios mean something.
"""

import json
import os
import platform
import statistics
import subprocess
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import timm
import torch
import tyro

import unic
from unic.data.folders import scan_folder
from unic.data.image_list import ImageList
from unic.evals.features import extract
from unic.models.timm_encoder import TimmEncoder


@dataclass(frozen=True, kw_only=True)
class Options:
    images: Path
    """A folder of images, with its subfolders."""
    num_images: int = 512
    models: tuple[str, ...] = ("vit_tiny_patch16_224", "mobilenetv3_small_100", "tf_efficientnet_lite0")
    sizes: tuple[int, ...] = (224, 224, 192)
    """Side of the square each model sees, in pixels."""
    rounds: int = 3
    batch_size: int = 64
    workers: int | None = None
    device: str = "cpu"


def main(options: Options) -> None:
    paths = scan_folder(options.images)
    step = max(1, len(paths) // options.num_images)  # spread over the classes
    images = ImageList(tuple(paths[::step][: options.num_images]), name=options.images.name)
    device = torch.device(options.device)
    encoders = [
        TimmEncoder(timm.create_model(name), name=name, image_size=size).eval().to(device)
        for name, size in zip(options.models, options.sizes, strict=True)
    ]

    def run(some: list[TimmEncoder], cache: Path | None = None) -> None:
        extract(
            some,
            images,
            device=device,
            batch_size=options.batch_size,
            workers=options.workers,
            cache_root=cache,
        )

    def alone() -> None:
        for encoder in encoders:
            run([encoder])

    with tempfile.TemporaryDirectory() as folder:
        rounds = iter(range(options.rounds + 1))
        times = medians(
            options.rounds,
            together=lambda: run(encoders),
            alone=alone,
            first=lambda: run(encoders, Path(folder) / str(next(rounds))),
            # The newest of the rounds' caches: the one that "first" has just filled.
            again=lambda: run(encoders, max(Path(folder).iterdir(), key=lambda path: int(path.name))),
        )
    print(
        json.dumps(
            {
                "machine": f"{platform.machine()} {os.cpu_count()} processors, {torch.get_num_threads()} threads",
                "device": options.device,
                "torch": torch.__version__,
                "commit": commit(),
                "images": len(images),
                "encoders": dict(zip(options.models, options.sizes, strict=True)),
                "seconds": {name: round(seconds, 3) for name, seconds in times.items()},
                "alone / together": round(times["alone"] / times["together"], 2),
                "first / again": round(times["first"] / times["again"], 1),
                "first / together": round(times["first"] / times["together"], 3),
            },
            indent=2,
        )
    )


def medians(num_rounds: int, **works: Callable[[], Any]) -> dict[str, float]:
    """Seconds of each kind of work, in turns; the first round warms up and does not count."""
    seconds: dict[str, list[float]] = {name: [] for name in works}
    for _ in range(num_rounds + 1):
        for name, work in works.items():
            start = time.perf_counter()
            work()
            seconds[name].append(time.perf_counter() - start)
    return {name: statistics.median(found[1:]) for name, found in seconds.items()}


def commit() -> str:
    folder = Path(unic.__file__).parent
    found = subprocess.run(
        ["git", "rev-parse", "--short", "HEAD"], cwd=folder, capture_output=True, text=True
    )
    return found.stdout.strip() or "unknown"


if __name__ == "__main__":
    main(tyro.cli(Options))
