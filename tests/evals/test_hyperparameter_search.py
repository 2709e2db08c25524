"""The search on disk: what is done is never done again, and a restart ends where no stop would have."""

import json
import logging
import math

import optuna
import pytest

from unic.evals.linear.hyperparameter_search import search

SPACE = {"C": (1e-5, 1e6)}
TWO = {"rate": (1e-1, 1e2), "decay": (1e-12, 1e-4)}


def hill(trial):
    """Highest at C = 0.01; steps of 1, as accuracies have steps."""
    return float(round(70 - 3 * abs(math.log10(trial["C"]) + 2)))


class Counted:
    """Values of trials, one at a time; stops the process, as it were, at its trial number `killed_at`."""

    def __init__(self, value=hill, killed_at=None):
        self.value, self.killed_at, self.trials = value, killed_at, []

    def __call__(self, trials):
        for trial in trials:
            if len(self.trials) == self.killed_at:
                raise KeyboardInterrupt
            self.trials.append(dict(trial))
            yield self.value(trial)


def run(score, record=None, *, space=SPACE, at_once=1, seed=22, num_trials=40):
    return search(space, score, seed=seed, num_trials=num_trials, record=record, at_once=at_once)


def test_the_trials_are_those_of_a_plain_optuna_study():
    study = optuna.create_study(
        direction="maximize",
        sampler=optuna.samplers.TPESampler(
            seed=22, multivariate=False, n_startup_trials=10, constant_liar=False
        ),
    )
    study.optimize(lambda t: hill({"C": t.suggest_float("C", 1e-5, 1e6, log=True)}), n_trials=40)
    score = Counted()
    best, value = run(score)
    assert [trial["C"] for trial in score.trials] == [trial.params["C"] for trial in study.trials]
    assert (best, value) == (study.best_params, study.best_value)


@pytest.mark.parametrize("killed_at", [0, 4, 17, 39])
@pytest.mark.parametrize("at_once", [1, 10])
def test_a_killed_search_continues_and_ends_where_no_kill_would_have(tmp_path, killed_at, at_once):
    whole = Counted()
    expected = run(whole, at_once=at_once)
    record = tmp_path / "deep" / "trials.jsonl"
    first, second = Counted(killed_at=killed_at), Counted()
    with pytest.raises(KeyboardInterrupt):
        run(first, record, at_once=at_once)
    assert run(second, record, at_once=at_once) == expected
    assert first.trials + second.trials == whole.trials
    third = Counted()
    assert run(third, record, at_once=at_once) == expected and not third.trials


def test_a_damaged_record_is_set_aside_with_a_warning_and_its_readable_trials_are_used(tmp_path, caplog):
    record = tmp_path / "trials.jsonl"
    expected = run(Counted(), record)
    lines = record.read_bytes().splitlines(keepends=True)
    lines[7] = b"\x00\xff" * 20 + b"\n"
    lines[9] = json.dumps({"params": {"C": 1.0}, "value": math.nan}).encode() + b"\n"
    record.write_bytes(b"".join(lines[:-1]) + lines[-1][:11])
    again = Counted()
    with caplog.at_level(logging.WARNING):
        assert run(again, record) == expected
    assert "3 of 40 trials cannot be read" in caplog.text
    assert len(again.trials) == 3
    assert (tmp_path / "trials.jsonl.damaged").exists() and len(record.read_bytes().splitlines()) == 40


def test_the_same_seed_searches_the_same_way_and_another_one_does_not():
    scores = [Counted() for _ in range(3)]
    for score, seed in zip(scores, (1, 1, 2), strict=True):
        run(score, seed=seed, num_trials=15)
    assert scores[0].trials == scores[1].trials != scores[2].trials


def test_the_first_of_equal_values_wins():
    score = Counted(value=lambda trial: 1.0)
    assert run(score, num_trials=12)[0] == score.trials[0]


@pytest.mark.parametrize("at_once", [1, 10])
def test_two_settings_stay_within_their_ranges(at_once):
    score = Counted(value=lambda trial: -abs(math.log10(trial["rate"])))
    run(score, space=TWO, at_once=at_once)
    assert len(score.trials) == 40
    for trial in score.trials:
        assert all(low <= trial[name] <= high for name, (low, high) in TWO.items())


def test_optunas_own_log_level_is_left_as_it_was():
    before = optuna.logging.get_verbosity()
    run(Counted(), num_trials=2)
    assert optuna.logging.get_verbosity() == before
