"""Several processes compute what one does: the same parameters, statistics, losses and validation, to rounding.

One process is itself compared with nothing here: its arithmetic is tested where it is written.
"""

import shutil
from collections.abc import Callable, Sequence
from pathlib import Path

import launch
import pytest
import torch

from unic.method.standardize import Moments
from unic.method.types import Widths
from unic.train.monitor.metric_sums import num_sums, pack
from unic.train.recipe import Recipe

# Sums over images are taken in another order: a few units in the last place of float32 (6e-8), through 20 steps of
# AdamW, whose normalised steps can enlarge them by 1 / sqrt(v) of a small gradient.
TOLERANCE = 1e-6


@pytest.fixture
def twenty(recipe: Recipe, photos: Path, change: Callable[..., Recipe]) -> Recipe:
    """20 steps of 6 images, validated twice on 5."""
    return change(
        recipe,
        {
            "optim": {"batch_size": 6, "epochs": 5.0, "max_grad_norm": 20.0, "lr": 3e-4},
            "data": {"val_root": (str(photos / "val"),)},
            "log": {"checkpoint_steps": None, "every": 3, "validate_every": 2.5},
        },
    )


@pytest.fixture
def compared(run, state_of, metrics, config, tmp_path):
    """Trains in one process and in two; gives the largest differences of parameters, statistics (relative), metrics."""

    def compare(
        alone: Recipe, together: Recipe, num_processes: int = 2, options: Sequence[str] = ()
    ) -> dict[str, float]:
        assert run(alone, tmp_path / "alone")
        if num_processes == 1:
            assert run(together, tmp_path / "ranks")
        else:
            launch.distill_on_ranks(num_processes, config(together), tmp_path / "ranks", options)
        one, other = state_of(tmp_path / "alone"), state_of(tmp_path / "ranks")
        assert one.keys() == other.keys()
        largest = {"model": 0.0, "statistics": 0.0, "metrics": 0.0}
        for name, tensor in one.items():
            part = name.partition("/")[0]
            if part == "model":
                largest[part] = max(largest[part], (tensor - other[name]).abs().max().item())
            elif part == "statistics" and not name.endswith("window"):
                mean, std = (one[f"{name.rpartition('_')[0]}_{moment}"].abs() for moment in ("mean", "std"))
                relative = ((tensor - other[name]).abs() / (mean + std)).max().item()
                largest[part] = max(largest[part], relative)
        lines = metrics(tmp_path / "alone"), metrics(tmp_path / "ranks")
        assert [r.keys() for r in lines[0]] == [r.keys() for r in lines[1]]
        for record, same in zip(*lines, strict=True):
            relative = max(abs(record[name] / same[name] - 1) for name in record if same[name])
            largest["metrics"] = max(largest["metrics"], relative)
        print(largest)
        return largest

    return compare


def assert_equal(largest: dict[str, float]) -> None:
    assert largest["model"] <= TOLERANCE
    assert largest["statistics"] <= TOLERANCE
    assert largest["metrics"] <= 3e-5  # the norm of a gradient is that of differences of large terms


def test_two_processes_train_and_validate_like_one(twenty, compared):
    assert_equal(compared(twenty, twenty))


# What an accelerator would be given, compiled for the CPU.
AS_ON_AN_ACCELERATOR = """
from pathlib import Path

import sys

import torch
from unic.kernels import choose, ladder_cpu, ladder_gpu
from unic.train.build_run import build_run


def choose_kernels(kind, device, autocast):
    Path(__file__).with_suffix(".used").touch()
    return choose.choose_kernels(kind, torch.device("meta"), autocast)


ladder_cpu._each_sum_of_mlps = ladder_gpu.sums_of_mlps
sys.modules[build_run.__module__].choose_kernels = choose_kernels
"""


@pytest.mark.slow
def test_two_processes_with_compiled_blocks_train_and_validate_like_one(twenty, compared, change, tmp_path):
    (tmp_path / "as_on_an_accelerator.py").write_text(AS_ON_AN_ACCELERATOR)
    options = ["--plugin", str(tmp_path / "as_on_an_accelerator.py")]
    assert_equal(compared(twenty, change(twenty, {"speed": {"micro_batch": 2}}), options=options))
    assert (tmp_path / "as_on_an_accelerator.used").exists()


@pytest.mark.parametrize(
    ("num_processes", "micro_batch"),
    [
        (1, 4),
        pytest.param(2, None, marks=pytest.mark.slow),
        (2, 2),
        pytest.param(3, 1, marks=pytest.mark.slow),
    ],
)
def test_unequal_shares_and_accumulated_gradients_change_nothing(
    num_processes, micro_batch, twenty, compared, change
):
    """7 images are 4 and 3 on two processes, and 4, 3 or 2, 2, 2, 1 in micro-batches."""
    odd = change(twenty, {"optim": {"batch_size": 7, "epochs": 20 / 3}})
    assert_equal(compared(odd, change(odd, {"speed": {"micro_batch": micro_batch}}), num_processes))


@pytest.mark.slow
@pytest.mark.parametrize("unused", ["cls", "patches"])
def test_projectors_without_a_loss_stay_as_they_are_in_two_processes_too(
    unused, twenty, compared, change, state_of, tmp_path
):
    recipe = change(twenty, {"loss": {unused: False}})
    assert_equal(compared(recipe, change(recipe, {"speed": {"micro_batch": 2}})))
    kind = {"cls": "cls", "patches": "patch"}[unused]
    assert not any("optimizer" in name and f".{kind}." in name for name in state_of(tmp_path / "ranks"))


@pytest.mark.slow
def test_a_run_of_two_processes_is_taken_up_by_one(twenty, run, state_of, config, change, tmp_path):
    """Steps 1 to 10 by two processes, which stop for a full folder of checkpoints; 11 to 20 by one."""
    assert run(twenty, tmp_path / "alone")
    saving = change(twenty, {"log": {"checkpoint_steps": 10, "keep": 9}})
    launch.distill_on_ranks(2, config(saving), tmp_path / "ranks")
    shutil.rmtree(tmp_path / "ranks" / "checkpoints" / "step-00000020")
    assert run(twenty, tmp_path / "ranks")
    one, other = state_of(tmp_path / "alone"), state_of(tmp_path / "ranks")
    for name, tensor in one.items():
        if name.startswith("model/"):
            torch.testing.assert_close(other[name], tensor, rtol=0, atol=TOLERANCE)


def test_what_processes_exchange_beside_gradients_is_fifty_kilobytes_for_unic_b():
    """Gathering the features instead would be 310 MB at 128 images a process."""
    width = Widths(768, 768)
    moments = {f"t{i}": Moments(torch.zeros(2), torch.zeros(4, max(width))) for i in range(4)}
    vector = pack([torch.zeros(3), torch.zeros(num_sums(4))], moments)
    by_hand = 3 + (2 + 3 * 4) + 4 * (2 + 4 * 768)
    assert vector.numel() == by_hand
    assert vector.numel() * vector.element_size() == 49_252 <= 50 * 1024


def test_a_user_mistake_ends_every_process_with_code_two_and_one_sentence(recipe, change, config, tmp_path):
    """The teacher is read by each process, the run folder by the main one."""
    log = tmp_path / "log"
    for wrong in (
        change(recipe, {"teachers": ("timm:resnet10",)}),
        change(recipe, {"data": {"root": ("/nowhere",)}}),
    ):
        words = ["distill", config(wrong), "--out", str(tmp_path / "run"), "--device", "cpu"]
        assert launch.finish(*launch.ranks(2, words, log)) == [2, 2], log.read_text()
    (tmp_path / "file").write_text("")
    words = ["distill", config(recipe), "--out", str(tmp_path / "file"), "--device", "cpu"]
    assert launch.finish(*launch.ranks(2, words, log)) == [2, 2], log.read_text()
    assert "Traceback" not in log.read_text()
