"""What learning from stored crops is worth: `fast` against `exact` segmentation, for equal steps, in one run.

    python benchmarks/dense.py --root camvid --encoder efficientnet_lite0 --size 256 --steps 500 2000

root: images with masks as `segmentation_folder` wants them. Features are computed anew in every round, so `fast` pays
for them; with more steps its share of that is smaller. Processor time is what other work on the machine disturbs least.
"""

import dataclasses
import json
import logging
import statistics
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
import tyro
from common import machine, timed

from unic.data.datasets import Roots
from unic.evals.evaluate import evaluate
from unic.evals.protocols.segmentation import SegmentationConfig
from unic.evals.registry import options_type
from unic.students.load_encoder import load


@dataclass(frozen=True, kw_only=True)
class Options:
    root: Path
    """Folder with images/, annotations/ and dataset.json."""
    encoder: str = "efficientnet_lite0"
    size: int = 256
    """Side of crops and windows, in pixels."""
    steps: tuple[int, ...] = (500,)
    views: int = 8
    rounds: int = 1
    device: str = "cpu"


def main(options: Options) -> None:
    logging.disable(logging.INFO)
    device = torch.device(options.device)
    encoder = load(options.encoder).to(device)
    for steps in options.steps:
        config = SegmentationConfig(steps=steps, size=options.size, views=options.views, panels=0)
        found = [
            {mode: measured(encoder, dataclasses.replace(config, mode=mode), options, device)
             for mode in ("fast", "exact")}
            for _ in range(options.rounds)
        ]  # fmt: skip
        report: dict[str, Any] = {"steps": steps, "encoder": options.encoder, "size": options.size}
        for what in ("seconds", "processor_seconds", "miou"):
            fast, exact = (statistics.median(of[mode][what] for of in found) for mode in ("fast", "exact"))
            report |= {f"fast_{what}": round(fast, 2), f"exact_{what}": round(exact, 2)}
            report |= (
                {f"{what}_ratio": round(exact / fast, 2)}
                if what != "miou"
                else {"miou_off": round(fast - exact, 2)}
            )
        print(json.dumps(report))
    print(json.dumps({**machine(), "device": options.device}))


def measured(
    encoder: Any, config: SegmentationConfig, options: Options, device: torch.device
) -> dict[str, float]:
    """Seconds of one evaluation that finds nothing kept, and its mIoU in percent."""
    settings = options_type()(workers=0, segmentation=config)  # pyright: ignore[reportCallIssue]
    with tempfile.TemporaryDirectory() as cache:
        results, seconds, processor_seconds = timed(
            lambda: evaluate(
                encoder, "segmentation_folder", Roots(options.root), ["segmentation"], settings,
                cache=Path(cache), device=device,
            )
        )  # fmt: skip
    return {"seconds": seconds, "processor_seconds": processor_seconds, "miou": results[0].value}


if __name__ == "__main__":
    main(tyro.cli(Options))
