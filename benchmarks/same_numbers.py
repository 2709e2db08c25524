"""Whether this checkout trains with the very numbers of another commit: the proof of a change that should not move any.

    python benchmarks/same_numbers.py --against COMMIT --images FOLDER

100 steps of `debug`, 20 of `small_images` and 40 with a ViT teacher are run by both checkouts on this machine, one
thread each: every loss and the final weights must agree to the last bit. Then a run that the other commit began, and a
signal stopped, is finished by this one, and must end in the weights of the run that was never stopped. Exit code 1
where anything differs.

FOLDER: at least 1,280 images, such as a part of CIFAR-10.
"""

import argparse
import hashlib
import json
import os
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any, NamedTuple

REPOSITORY = Path(__file__).resolve().parent.parent


class Case(NamedTuple):
    """A run: `options` beside the recipe's own."""

    recipe: str
    steps: int
    batch: int
    options: tuple[str, ...] = ()


CASES = {
    "debug": Case("debug", 100, 8),
    "small_images": Case("small_images", 20, 64),
    "ViT teacher in bf16": Case(
        "debug",
        40,
        8,
        ("--teachers", "timm:test_vit?pretrained=0&image_size=32", "--speed.precision", "bf16"),
    ),
    "ViT teacher": Case("debug", 40, 8, ("--teachers", "timm:test_vit?pretrained=0&image_size=32")),
}


def main() -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--against", required=True, help="commit to compare with")
    parser.add_argument("--images", required=True, type=Path, help="folder of at least 1,280 images")
    options = parser.parse_args()
    images = options.images.expanduser().absolute()
    with tempfile.TemporaryDirectory() as scratch:
        work = Path(scratch)
        other = work / "other"
        subprocess.run(
            ["git", "-C", str(REPOSITORY), "worktree", "add", "--detach", "-f", str(other), options.against],
            check=True, capture_output=True,
        )  # fmt: skip
        try:
            return int(not all([agrees(name, other, work, images) for name in CASES]))
        finally:
            subprocess.run(
                ["git", "-C", str(REPOSITORY), "worktree", "remove", "--force", str(other)], check=True
            )


def agrees(name: str, other: Path, work: Path, images: Path) -> bool:
    case, out = CASES[name], work / name.replace(" ", "-")
    before = result_of(train(case, other, out / "before", images))
    after = result_of(train(case, REPOSITORY, out / "after", images))
    begun = train(case, other, out / "begun", images, stop_at=case.steps // 2)
    finished = result_of(train(case, REPOSITORY, begun, images))
    same_losses = before["losses"] == after["losses"] and len(before["losses"]) == case.steps
    same_weights = before["weights"] == after["weights"]
    goes_on = before["weights"] == finished["weights"]
    print(
        f"{name}: {len(before['losses'])} losses {'equal' if same_losses else 'DIFFER'}, the last "
        f"{after['losses'][-1]!r}; final weights {'equal' if same_weights else 'DIFFER'}, sha256 "
        f"{after['weights'][:16]}; a run begun before {'ends the same' if goes_on else 'ENDS IN OTHER WEIGHTS'}",
        flush=True,
    )
    return same_losses and same_weights and goes_on


def train(case: Case, checkout: Path, out: Path, images: Path, stop_at: int | None = None) -> Path:
    """Runs `unic distill` of that checkout; SIGTERM after `stop_at` steps."""
    epochs = case.steps * case.batch / sum(1 for path in images.rglob("*") if path.is_file())
    words = [
        "distill", case.recipe, "--data.root", str(images), "--out", str(out), "--device", "cpu", "--log.every", "1",
        "--optim.epochs", repr(epochs), "--optim.warmup-epochs", repr(epochs / 10), "--speed.workers", "1",
        *case.options,
    ]  # fmt: skip
    environment = {**os.environ, "PYTHONPATH": str(checkout / "src"), "OMP_NUM_THREADS": "1"}
    environment["UNIC_CACHE"] = str(out.with_name(f"{out.name}-cache"))
    process = subprocess.Popen(
        [sys.executable, "-c", "import sys; from unic.cli import main; sys.exit(main())", *words],
        env=environment, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True,
    )  # fmt: skip
    while stop_at is not None and process.poll() is None:
        if len(records(out)) >= stop_at:
            process.send_signal(signal.SIGTERM)
            break
        time.sleep(0.02)
    _, errors = process.communicate()
    if process.returncode not in (0, 143):
        sys.exit(f"{checkout}: {' '.join(words)} ended with {process.returncode}:\n{errors}")
    return out


def records(run: Path) -> list[dict[str, Any]]:
    path = run / "metrics.jsonl"
    lines = path.read_text().splitlines(keepends=True) if path.exists() else []
    return [json.loads(line) for line in lines if line.endswith("\n")]


def result_of(run: Path) -> dict[str, Any]:
    newest = max((run / "checkpoints").glob("step-*"))
    return {
        "losses": [record["loss"] for record in records(run)],
        "weights": hashlib.sha256((newest / "model.safetensors").read_bytes()).hexdigest(),
    }


if __name__ == "__main__":
    sys.exit(main())
