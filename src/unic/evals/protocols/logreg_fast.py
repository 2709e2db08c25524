"""logreg-fast: the classifier of logreg, found faster."""

from typing import TYPE_CHECKING

from unic.core.results import Result
from unic.evals.protocols.logreg import LogregConfig
from unic.evals.registry import EVALUATIONS, EvalOptions, Evaluation, own_settings

if TYPE_CHECKING:
    from unic.evals.eval_data import EvalData
    from unic.method.tokens import Encoder


def run(encoder: "Encoder", data: "EvalData", options: EvalOptions) -> list[Result]:
    from unic.evals.linear.classifier import report
    from unic.evals.logreg_fast import FAST

    return report(data, FAST, own_settings(options, "logreg-fast"))


EVALUATIONS.add(
    "logreg-fast",
    Evaluation(
        "logreg-fast", run, "linear classifier on CLS tokens, UNIC's protocol solved faster", LogregConfig()
    ),
)
