"""The demonstration: two real teachers, real images, one student, and a table that says whether it worked.

Everything comes from installed packages: EfficientNet-Lite0 and Lite2 with ImageNet weights, and scikit-learn's 1,797
handwritten digits.
"""

import dataclasses
from pathlib import Path

import torch

from unic.core.run_folder import RunDir
from unic.data.datasets.digits import write_digits
from unic.evals.evaluate_many import baselines, evaluate_encoders
from unic.evals.registry import EvalOptions
from unic.recipes import demo
from unic.tools.report.loss_plots import plot_losses
from unic.tools.report.page import write_report
from unic.tools.report.results_table import print_results, reported, to_markdown
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
    records = evaluate_encoders(
        [*recipe.teachers, str(run)], {"digits": ("knn",)}, images, EvalOptions(), device=device, untrained=True,
        out=out / "results.jsonl",
    )  # fmt: skip
    plot_losses(RunDir(run).read("metrics.jsonl"), out / "losses.png")
    (out / "results.md").write_text(to_markdown(reported(records), baselines(recipe.teachers)))
    print_results(records, baselines(recipe.teachers))
    print(f"run folder: {run}   loss curves: {out / 'losses.png'}   table: {out / 'results.md'}")
    print(f"use it: python -c \"import unic; encoder = unic.load('{run}')\"")
    print(f"report: {write_report([run, out / 'results.jsonl'], out / 'report')}")
    return True
