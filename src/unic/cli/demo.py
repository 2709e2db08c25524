"""Distil two real teachers into a small student on this machine, in about two minutes.

The teachers are EfficientNet-Lite0 and Lite2 with ImageNet weights, the images are scikit-learn's 1,797 handwritten
digits: everything comes from installed packages. A table at the end says whether it worked.
"""

import dataclasses
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from unic import recipes
from unic.cli.common import Common, parse, process_group
from unic.core.errors import EXIT_TERMINATED

if TYPE_CHECKING:
    import torch


@dataclass(frozen=True, kw_only=True)
class Options(Common):
    out: Path = Path("runs/demo")
    """Folder for the images, the run and its results."""


def run(words: list[str]) -> int:
    options = parse(Options, words, "demo")
    with process_group(options.device) as device:
        return 0 if run_demo(options.out, device) else EXIT_TERMINATED


def run_demo(out: Path, device: "torch.device") -> bool:
    """Distils and evaluates in `out`; prints the table, and where the report is. False when a signal stopped it."""
    from unic.core.run_folder import RunDir
    from unic.data.datasets import Roots
    from unic.data.datasets.digits import write_digits
    from unic.evals.evaluate_encoders import EvaluationRequest, baselines, evaluate_encoders
    from unic.evals.registry import EvalOptions
    from unic.tools.report.comparison import compare
    from unic.tools.report.matplotlib_charts import plot_losses
    from unic.tools.report.page import write_report
    from unic.tools.report.results_table import print_results, to_markdown
    from unic.train.loop import train

    images = out / "digits"
    write_digits(images)
    recipe = recipes.demo()
    recipe = dataclasses.replace(recipe, data=dataclasses.replace(recipe.data, root=(str(images / "train"),)))
    student = out / "student"
    if not train(recipe, student, device):
        return False
    request = EvaluationRequest(
        references=(*recipe.teachers, str(student)),
        plan={"digits": ("knn",)},
        roots=Roots(images),
        options=EvalOptions(),
        untrained=True,
    )
    results = evaluate_encoders(request, device=device, out=out / "results.jsonl")
    plot_losses(RunDir(student).read("metrics.jsonl"), out / "losses.png")
    comparison = compare(results, baselines(recipe.teachers))
    (out / "results.md").write_text(to_markdown(comparison.main()))
    print_results(results, baselines(recipe.teachers))
    print(f"run folder: {student}   loss curves: {out / 'losses.png'}   table: {out / 'results.md'}")
    print(f"use it: python -c \"import unic; encoder = unic.load('{student}')\"")
    print(f"report: {write_report([student, out / 'results.jsonl'], out / 'report')}")
    return True
