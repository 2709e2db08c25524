"""What sharing the decoding of images, and keeping features, is worth: ratios measured side by side in one run.

    python benchmarks/features.py --images /data/imagenet/val --num-images 512

(a) three encoders together, against one after the other; (b) features from the cache, against computing them. The
networks are timm's with random weights, whose speed is that of trained ones. Rounds alternate, and the median is what
counts: other work on the machine disturbs both sides alike, so only the ratios mean something.
"""

import tempfile
from dataclasses import dataclass
from pathlib import Path

import timm
import torch
import tyro
from common import machine, medians, report

from unic.data.folders import scan_folder
from unic.data.labeled_images import ImageList
from unic.evals.features import extract
from unic.evals.registry import EvalOptions
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

    settings = EvalOptions(batch_size=options.batch_size, workers=options.workers)

    def run(some: list[TimmEncoder], cache: Path | None = None) -> None:
        extract(some, images, settings, device=device, cache_root=cache)

    with tempfile.TemporaryDirectory() as folder:
        works = {
            "together": lambda number: run(encoders),
            "alone": lambda number: [run([encoder]) for encoder in encoders],
            # Each round has a cache of its own, which "first" fills.
            "first": lambda number: run(encoders, Path(folder) / str(number)),
            "again": lambda number: run(encoders, Path(folder) / str(number)),
        }
        times = medians(options.rounds, works)
    numbers = {
        **machine(),
        "device": options.device,
        "images": len(images),
        "encoders": dict(zip(options.models, options.sizes, strict=True)),
        "seconds": {name: round(seconds, 3) for name, seconds in times.items()},
        "alone / together": round(times["alone"] / times["together"], 2),
        "first / again": round(times["first"] / times["again"], 1),
        "first / together": round(times["first"] / times["together"], 3),
    }
    report(numbers, None, "features")


if __name__ == "__main__":
    main(tyro.cli(Options))
