"""How much faster `knn` is than a plain loop over k, side by side in one run, and whether the answers are the same.

    python benchmarks/knn.py --rows 200000 --queries 10000 --width 768 --threads 2

The plain loop does for each k what DINO's evaluation does: 100 queries at a time, float32 similarities to all rows,
`topk`, votes. It is timed on `--plain-queries` of the queries, half of them before and half after ours, and its
time for all of them is scaled from these. The definition (float64, every row sorted) runs on `--exact-queries`
of them: top-1 of each must be ours. The plain loop's own float32 rounding may decide near ties otherwise; such
predictions are counted. Features are overlapping Gaussian clusters, or those of a file {"x": ..., "y": ...} of torch.
Other work on the machine disturbs wall-clock times: the ratio of processor time means most.

`--against other/src` times our search in this source and in another checkout's, in turns, instead; each in processes
of its own, of which the medians count.
"""

import json
import os
import statistics
import subprocess
import sys
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
import tyro
from common import machine, report, timed
from torch import Tensor

import unic
from unic.evals.knn import knn_predict
from unic.evals.knn_search_exact import nearest
from unic.evals.protocols.knn import KnnConfig

KS = (10, 20, 100, 200)
TEMPERATURE = 0.07
PLAIN_CHUNK = 100
NUM_CLASSES = 1000


@dataclass(frozen=True, kw_only=True)
class Options:
    rows: int = 20_000
    queries: int = 1_000
    width: int = 384
    chunk: int = KnnConfig.chunk
    plain_queries: int = 400
    """Timed in the plain loop, whose time for all is scaled from these."""
    exact_queries: int = 1_000_000
    """Compared with the definition; its time for all is scaled from these."""
    files: tuple[Path, Path] | None = None
    """Features of rows and of queries to use instead of clusters."""
    threads: int = 1
    out: Path | None = None
    """Folder for one JSON file of the numbers."""
    against: Path | None = None
    """The src folder of another checkout of unic, to be timed in turns with this one."""
    rounds: int = 3
    """Of `against`."""


def main(options: Options) -> None:
    torch.set_num_threads(options.threads)
    rows, labels, queries = from_files(*options.files) if options.files else clusters(options)
    if options.against:
        report(in_turns(options, rows, labels, queries), options.out, "knn")
        return
    num_classes = int(labels.max()) + 1
    spread = torch.linspace(0, len(queries) - 1, min(options.plain_queries, len(queries))).long()
    halves = [half for half in spread.chunk(2) if len(half)]
    chosen = torch.linspace(0, len(queries) - 1, min(options.exact_queries, len(queries))).long()

    unit_rows = F.normalize(rows, dim=1)
    plain: list[dict[int, Tensor]] = []
    plain_seconds = torch.zeros(2, dtype=torch.float64)

    def time_plain(half: Tensor) -> None:
        predictions, wall, processor = timed(
            lambda: plain_loop(unit_rows, labels, queries[half], num_classes)
        )
        plain.append(predictions)
        plain_seconds.add_(torch.tensor([wall, processor], dtype=torch.float64))

    time_plain(halves[0])
    base = memory("VmRSS")
    forget_peak()
    ranked, wall, processor = timed(
        lambda: knn_predict(
            rows,
            labels,
            queries,
            ks=KS,
            temperature=TEMPERATURE,
            num_classes=num_classes,
            chunk=options.chunk,
        )
    )
    peak = memory("VmHWM")
    for half in halves[1:]:
        time_plain(half)
    plain_seconds *= len(queries) / len(spread)
    exact, exact_wall, exact_processor = timed(
        lambda: definition(rows, labels, queries[chosen], num_classes, options.chunk)
    )
    scale = len(queries) / len(chosen)
    numbers = {
        **machine(),
        "features": str(options.files[0].name) if options.files else "Gaussian clusters",
        "rows": len(rows),
        "queries": len(queries),
        "width": rows.shape[1],
        "classes": num_classes,
        "chunk": options.chunk,
        "plain_over_ours_wall": round(float(plain_seconds[0]) / wall, 1),
        "plain_over_ours_processor": round(float(plain_seconds[1]) / processor, 1),
        "definition_over_ours_wall": round(exact_wall * scale / wall, 1),
        "definition_over_ours_processor": round(exact_processor * scale / processor, 1),
        "same_as_definition": {k: float((ranked[k][chosen, 0] == exact[k]).double().mean()) for k in KS},
        "definition_compared_on": len(chosen),
        "plain_differs": {
            k: int((torch.cat([part[k] for part in plain]) != ranked[k][spread, 0]).sum()) for k in KS
        },
        "plain_timed_on": len(spread),
        "seconds_ours": {"wall": round(wall, 2), "processor": round(processor, 2)},
        "seconds_plain_scaled": {
            "wall": round(float(plain_seconds[0]), 1),
            "processor": round(float(plain_seconds[1]), 1),
        },
        "peak_memory_MiB": {
            "ours_beyond_features": round(peak - base),
            "features": round((rows.nbytes + queries.nbytes) / 2**20),
        },
    }
    report(numbers, options.out, "knn")


def in_turns(options: Options, rows: Tensor, labels: Tensor, queries: Tensor) -> dict[str, Any]:
    """Median seconds of `knn_predict` here and in the other checkout, and whether all predictions are the same."""
    assert options.against is not None
    sources = {"ours": Path(unic.__file__).parents[1], "other": options.against}
    measured: dict[str, list[dict[str, Any]]] = {name: [] for name in sources}
    with tempfile.TemporaryDirectory() as folder:
        torch.save((rows, labels, queries), Path(folder) / "features.pt")
        for number in range(options.rounds):
            for name in sorted(sources, reverse=bool(number % 2)):
                words = [f"{folder}/features.pt", str(options.chunk), str(options.threads)]
                environment = {**os.environ, "PYTHONPATH": str(sources[name].resolve())}
                run = subprocess.run(
                    [sys.executable, "-c", ONE_RUN, *words],
                    env=environment,
                    capture_output=True,
                    text=True,
                    check=True,
                )
                measured[name].append(json.loads(run.stdout))
    medians = {
        f"{name}_{what}_seconds": round(statistics.median(run[what] for run in runs), 2)
        for name, runs in measured.items()
        for what in ("wall", "processor")
    }
    return {
        **machine(),
        "load": [round(load, 1) for load in os.getloadavg()],
        "rows": len(rows),
        "queries": len(queries),
        "width": rows.shape[1],
        "rounds": options.rounds,
        "same_predictions": len({run["predictions"] for runs in measured.values() for run in runs}) == 1,
        **medians,
    }


ONE_RUN = """
import hashlib, json, sys, time
import torch
from unic.evals.knn import knn_predict
torch.set_num_threads(int(sys.argv[3]))
rows, labels, queries = torch.load(sys.argv[1], weights_only=True)
options = dict(ks=[10, 20, 100, 200], temperature=0.07, num_classes=int(labels.max()) + 1, chunk=int(sys.argv[2]))
knn_predict(rows[:4096], labels[:4096], queries[:64], **options)  # threads and libraries start
wall, processor = time.perf_counter(), time.process_time()
ranked = knn_predict(rows, labels, queries, **options)
seconds = {"wall": time.perf_counter() - wall, "processor": time.process_time() - processor}
predictions = hashlib.sha256(b"".join(ranked[k].numpy().tobytes() for k in sorted(ranked))).hexdigest()
print(json.dumps({**seconds, "predictions": predictions}))
"""


def plain_loop(rows: Tensor, labels: Tensor, queries: Tensor, num_classes: int) -> dict[int, Tensor]:
    """Every k by itself, in float32. rows: of length 1 already, so that this is not scaled with the queries."""
    found: dict[int, list[Tensor]] = {k: [] for k in KS}
    for k in KS:
        for part in F.normalize(queries, dim=1).split(PLAIN_CHUNK):
            sims, index = (part @ rows.T).topk(k, dim=1)
            found[k].append(votes(sims, labels[index], num_classes).argmax(dim=1))
    return {k: torch.cat(parts) for k, parts in found.items()}


def definition(
    rows: Tensor, labels: Tensor, queries: Tensor, num_classes: int, chunk: int
) -> dict[int, Tensor]:
    found: dict[int, list[Tensor]] = {k: [] for k in KS}
    for part in queries.split(chunk):
        sims, index = nearest(part, rows, max(KS), chunk)
        for k in KS:
            scores = votes(sims[:, :k], labels[index[:, :k]], num_classes)
            found[k].append(scores.float().argmax(dim=1))
    return {k: torch.cat(parts) for k, parts in found.items()}


def votes(sims: Tensor, labels: Tensor, num_classes: int) -> Tensor:
    weights = ((sims - sims[:, :1]) / TEMPERATURE).exp()
    return weights.new_zeros(len(sims), num_classes).scatter_add_(1, labels, weights)


def clusters(options: Options) -> tuple[Tensor, Tensor, Tensor]:
    """Overlapping clusters; variance falls from one axis to the next, and none is negative, as in real features."""
    generator = torch.Generator().manual_seed(0)
    axes = (1 + torch.arange(options.width)) ** -0.5
    centres = torch.randn(NUM_CLASSES, options.width, generator=generator) * axes

    def draw(count: int) -> tuple[Tensor, Tensor]:
        labels = torch.arange(count) * NUM_CLASSES // count  # sorted by class, as folders of images are
        features = torch.empty(count, options.width)
        for start in range(0, count, 4096):
            part = labels[start : start + 4096]
            noise = torch.randn(len(part), options.width, generator=generator) * axes
            features[start : start + 4096] = (centres[part] + 1.5 * noise).relu()
        return features, labels

    (rows, labels), (queries, _) = draw(options.rows), draw(options.queries)
    return rows, labels, queries


def from_files(train: Path, test: Path) -> tuple[Tensor, Tensor, Tensor]:
    rows, queries = (torch.load(path, weights_only=True) for path in (train, test))
    return rows["x"].float(), rows["y"].long(), queries["x"].float()


def forget_peak() -> None:
    """Linux: the largest memory of this process is counted from here on."""
    Path("/proc/self/clear_refs").write_text("5")


def memory(name: str) -> float:
    """MiB; VmRSS: now, VmHWM: the most so far."""
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) / 1024 for line in lines if line.startswith(f"{name}:"))


if __name__ == "__main__":
    main(tyro.cli(Options))
