"""The search for a classifier's settings: Optuna's TPE, which continues where a killed evaluation stopped.

What is kept on disk is the value of every trial, not the state of the sampler. A restart asks the sampler
the same questions again, answers them from the file as long as it can, and so arrives at the same state.
"""

import json
import logging
import math
import warnings
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from pathlib import Path

from unic.core.files import parse_lines, write_atomically
from unic.core.progress import with_progress

log = logging.getLogger(__name__)

NUM_STARTUP = 10
"""Trials drawn at random before the search learns from them."""

Params = dict[str, float]


def search(
    space: Mapping[str, tuple[float, float]],
    score: Callable[[Sequence[Params]], Iterable[float]],
    *,
    seed: int,
    num_trials: int,
    record: Path | None,
    at_once: int = 1,
) -> tuple[Params, float]:
    """The settings of the highest value found, the first of equals, and that value.

    space: for each setting its smallest and largest value; drawn log-uniformly. One setting is modelled by
      itself, several together (multivariate, in groups), as in UNIC's protocol.
    score: gives the values of some trials in their order, each as soon as it is known. The first NUM_STARTUP
      come together: their settings depend on no value.
    record: file of finished trials; None keeps none. A damaged one is set aside, what is readable is used.
    at_once: trials asked for together after the first NUM_STARTUP. More than one lets the sampler assume the
      lowest value for those not yet known (`constant_liar`), which changes the search a little.
    """
    import optuna
    from optuna.distributions import BaseDistribution, FloatDistribution
    from optuna.samplers import TPESampler

    known = _read(record) if record else {}
    joint = len(space) > 1
    verbosity = optuna.logging.get_verbosity()
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", optuna.exceptions.ExperimentalWarning)
            # Everything is said: the defaults of `multivariate` and `constant_liar` changed in Optuna 5.
            sampler = TPESampler(
                seed=seed,
                n_startup_trials=NUM_STARTUP,
                multivariate=joint,
                group=joint,
                constant_liar=at_once > 1,
            )
        study = optuna.create_study(direction="maximize", sampler=sampler)
        distributions: dict[str, BaseDistribution] = {
            name: FloatDistribution(*ends, log=True) for name, ends in space.items()
        }

        def run() -> Iterator[Params]:
            done = 0
            while done < num_trials:
                count = min(NUM_STARTUP if done == 0 else at_once, num_trials - done)
                trials = [study.ask(distributions) for _ in range(count)]
                new = [trial.params for trial in trials if _key(trial.params) not in known]
                for params, value in zip(new, score(new) if new else (), strict=True):
                    known[_key(params)] = value
                    if record:
                        _write(record, known)
                    yield params
                for trial in trials:
                    study.tell(trial, known[_key(trial.params)])
                done += count

        what = f"search for {' and '.join(space)}, seed {seed}"
        for _ in with_progress(run(), num_trials, what, unit="trials", done=min(len(known), num_trials)):
            pass
        return dict(study.best_trial.params), study.best_value
    finally:
        optuna.logging.set_verbosity(verbosity)


def _key(params: Params) -> str:
    """Exact: Python writes a float so that reading gives the same one."""
    return json.dumps(params, sort_keys=True)


def _write(record: Path, known: dict[str, float]) -> None:
    lines = [json.dumps({"params": json.loads(key), "value": value}) for key, value in known.items()]
    record.parent.mkdir(parents=True, exist_ok=True)
    write_atomically(record, "".join(f"{line}\n" for line in lines).encode())


def _read(record: Path) -> dict[str, float]:
    if not record.exists():
        return {}
    trials, damaged_lines = parse_lines(record, last_needs_end=False)
    known: dict[str, float] = {}
    num_damaged = len(damaged_lines)
    for trial in trials:
        value = trial.get("value")
        if "params" in trial and isinstance(value, float | int) and math.isfinite(value):
            known[_key(trial["params"])] = float(value)
        else:
            num_damaged += 1
    if num_damaged:
        aside = record.with_name(f"{record.name}.damaged")
        record.replace(aside)
        log.warning(
            "%s: %d of %d trials cannot be read and are run again; the file is now %s",
            record, num_damaged, len(trials) + len(damaged_lines), aside.name,
        )  # fmt: skip
    elif known:
        log.info("the search continues after %d trials (%s)", len(known), record)
    return known
