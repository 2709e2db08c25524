"""The demonstration: two real teachers, real images, one student, and a table that says whether it worked.

Everything comes from installed packages: EfficientNet-Lite0 and Lite2 with ImageNet weights, and scikit-learn's 1,797
handwritten digits.
"""

import dataclasses
from pathlib import Path

import torch

from unic.core.run_folder import RunDir
from unic.data.datasets import Roots
from unic.data.datasets.digits import write_digits
from unic.evals.api import EvalOptions
from unic.evals.evaluate_many import EvaluationRequest, baselines, evaluate_encoders
from unic.recipes import demo
from unic.tools.report.comparison import compare
from unic.tools.report.figures import plot_losses
from unic.tools.report.page import write_report
from unic.tools.report.results_table import print_results, to_markdown
from unic.train.loop import train


def run_demo(out: Path, device: torch.device) -> bool:
    """Distils and evaluates in `out`; prints the table, and where the report is. False when a signal stopped it."""
    images = out / "digits"
    write_digits(images)
    recipe = demo()
    recipe = dataclasses.replace(recipe, data=dataclasses.replace(recipe.data, root=(str(images / "train"),)))
    run = out / "student"
    if not train(recipe, run, device):
        return False
    (run / "results.jsonl").unlink(missing_ok=True)  # a repeated demo would list everything twice
    request = EvaluationRequest(
        references=[*recipe.teachers, str(run)], plan={"digits": ("knn",)}, roots=Roots(images), options=EvalOptions(),
        untrained=True,
    )  # fmt: skip
    results = evaluate_encoders(request, device=device, out=out / "results.jsonl")
    plot_losses(RunDir(run).read("metrics.jsonl"), out / "losses.png")
    (out / "results.md").write_text(to_markdown(compare(results, baselines(recipe.teachers)).main()))
    print_results(results, baselines(recipe.teachers))
    print(f"run folder: {run}   loss curves: {out / 'losses.png'}   table: {out / 'results.md'}")
    print(f"use it: python -c \"import unic; encoder = unic.load('{run}')\"")
    print(f"report: {write_report([run, out / 'results.jsonl'], out / 'report')}")
    return True
