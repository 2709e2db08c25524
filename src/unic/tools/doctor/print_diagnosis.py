"""A diagnosis for the terminal: a table of teachers, one of pairs, one of normalisations, then what was found."""

from rich.console import Console
from rich.markup import escape
from rich.table import Table

from unic.tools.doctor.doctor import Diagnosis
from unic.tools.doctor.findings import how_much
from unic.tools.doctor.normalisation import Trial


def print_diagnosis(diagnosis: Diagnosis, console: Console) -> None:
    print_ = console.print
    print_(
        f"{diagnosis.images} images of {escape(diagnosis.data)}, {diagnosis.seconds:.0f} s", highlight=False
    )
    for table in (_teachers(diagnosis), _pairs(diagnosis), _normalisations(diagnosis)):
        if table.row_count:
            print_()
            print_(table)
    print_()
    for finding in diagnosis.findings:
        colour = "yellow" if finding.level == "warning" else "cyan"
        print_(f"[{colour}]{finding.level}[/]  {escape(finding.message)}", highlight=False)
    if not any(finding.level == "warning" for finding in diagnosis.findings):
        print_("no warnings", highlight=False)


def _teachers(diagnosis: Diagnosis) -> Table:
    table = _table(
        "teacher", "token", "grid", "norm", "rank", "dead", "outliers", "top 3 dims", "first loss", "no floor",
        "img/s", "MB",
    )  # fmt: skip
    table.caption = (
        "rank: effective, of at most. first loss: of a student that answers the mean; no floor: with std_floor 0 and "
        f"the statistics of one batch. MB: {diagnosis.memory}."
    )
    facts = {teacher.name: teacher for teacher in diagnosis.facts}
    for row in diagnosis.rows:
        first = row.token == "cls"
        grid = "{} x {}".format(*facts[row.name].grid)
        rank = "" if row.effective_rank is None else f"{row.effective_rank:.0f} / {row.rank_limit}"
        table.add_row(
            escape(row.name) if first else "", "CLS" if first else "patches", "" if first else grid,
            _number(row.norm, ".1f"), rank or "-", _number(row.dead_share, ".1%"), _number(row.outlier_share, ".1%"),
            _number(row.largest_share, ".0%"), _loss(row.expected_loss),
            _loss(row.expected_loss_without_floor),
            _number(row.images_per_second, ".0f" if row.images_per_second >= 10 else ".1f") if first else "",
            _number(row.memory_mb, ".0f") if first else "",
        )  # fmt: skip
    return table


def _pairs(diagnosis: Diagnosis) -> Table:
    table = _table("pair", "", "CKA CLS", "CKA patches", "kNN CLS", "kNN patches")
    table.caption = (
        "CKA: linear, 1 is the same up to rotation. kNN: share of common nearest neighbours. Patches on a grid of "
        "{} x {}.".format(*diagnosis.grid)
    )
    for cls, patches in zip(diagnosis.pairs[::2], diagnosis.pairs[1::2], strict=True):
        values = (cls.cka, patches.cka, cls.neighbours, patches.neighbours)
        table.add_row(escape(cls.a), escape(cls.b), *(f"{value:.2f}" for value in values))
    return table


def _normalisations(diagnosis: Diagnosis) -> Table:
    conventions = list(
        dict.fromkeys(trial.convention for trials in diagnosis.trials.values() for trial in trials[1:])
    )
    table = _table("normalisation", "its own", *conventions)
    table.caption = (
        "cosine of features with those under its own (misfit of the first BatchNorm, in nats; 0 fits best, none "
        "where there is no BatchNorm)"
    )
    for teacher in diagnosis.facts:
        own, *others = diagnosis.trials[teacher.name]
        by_name = {trial.convention: trial for trial in others}
        cells = [_trial(by_name[name]) if name in by_name else "= its own" for name in conventions]
        table.add_row(
            escape(teacher.name),
            f"{own.normalisation.name() or own.normalisation.text()}{_misfit(own)}",
            *cells,
        )
    return table


def _trial(trial: Trial) -> str:
    if trial.cosine is None:
        return f"-{_misfit(trial)}"
    return f"{how_much(trial.cosine)} {trial.cosine:.2f}{_misfit(trial)}"


def _misfit(trial: Trial) -> str:
    return "" if trial.misfit is None else f" ({trial.misfit:.2f})"


def _number(value: float | None, form: str) -> str:
    return "-" if value is None else format(value, form)


def _loss(value: float | None) -> str:
    return _number(value, ".2f" if (value or 0) < 10 else ".0f")


def _table(first: str, *others: str) -> Table:
    table = Table(box=None, pad_edge=False, caption_justify="left")
    table.add_column(first, no_wrap=True)
    for name in others:
        table.add_column(name, justify="right" if name else "left")
    return table
