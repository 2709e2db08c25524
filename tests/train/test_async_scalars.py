"""What the host learns a step late, as on an accelerator, changes nothing but when it is said."""

import pytest
import torch

from unic.core.errors import NonFiniteError
from unic.train.async_scalars import AsyncScalars


def send(outcomes: AsyncScalars, step: int) -> None:
    facts = torch.arange(6.0)
    outcomes.send(step, torch.tensor(step != 1), facts[2], facts[:2], facts[3:])


def test_outcomes_arrive_in_order_with_what_was_sent():
    outcomes = AsyncScalars(torch.device("cpu"))
    for step in range(3):
        send(outcomes, step)
    found = list(outcomes.arrived(all_of_them=False))
    assert [(outcome.step, outcome.finite) for outcome in found] == [(0, True), (1, False), (2, True)]
    assert found[0].grad_norm == 2 and found[0].flags == [0, 1] and found[0].sums.tolist() == [3, 4, 5]


def test_behind_by_a_step_the_last_one_is_read_when_all_are_asked_for(late):
    outcomes = late(torch.device("cpu"))
    read = []
    for step in range(3):
        send(outcomes, step)
        read.append([outcome.step for outcome in outcomes.arrived(all_of_them=step == 2)])
    assert read == [[], [0], [1, 2]]


def test_a_run_that_learns_late_ends_with_the_same_weights(short, run, state_of, tmp_path, request):
    assert run(short, tmp_path / "plain")
    request.getfixturevalue("late")
    assert run(short, tmp_path / "late")
    plain, late = (state_of(tmp_path / name) for name in ("plain", "late"))
    assert plain.keys() == late.keys() and all(torch.equal(plain[name], late[name]) for name in plain)


def test_three_in_a_row_end_the_run_though_the_fourth_has_begun(
    short, run, bad_gradient, state_of, late, tmp_path
):
    bad_gradient((1, 2, 3, 4, 5))
    with pytest.raises(NonFiniteError, match="step 3: not finite: gradient, for 3 steps in a row"):
        run(short, tmp_path / "run")
    before, after = state_of(tmp_path / "run", 2), state_of(tmp_path / "run", 4)
    assert all(torch.equal(before[name], after[name]) for name in before)
