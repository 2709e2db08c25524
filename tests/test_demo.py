"""`unic demo` as a newcomer runs it; minutes, so it is marked slow."""

import json
from pathlib import Path

import pytest
import torch

from unic.cli.demo import run_demo


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_the_student_beats_the_untrained_one_and_comes_near_the_better_teacher(tmp_path: Path, monkeypatch):
    monkeypatch.setenv("UNIC_CACHE", str(tmp_path / "cache"))
    assert run_demo(tmp_path / "demo", torch.device("cpu"))
    records = [json.loads(line) for line in (tmp_path / "demo" / "results.jsonl").read_text().splitlines()]
    top1 = {r["model"]: r["value"] for r in records if r["metric"] == "top1_k20"}
    best_teacher = max(top1["efficientnet_lite0"], top1["efficientnet_lite2"])
    assert top1["student"] > top1["student untrained"] + 20
    assert top1["student"] > best_teacher - 2
    assert (tmp_path / "demo" / "losses.png").stat().st_size > 10_000
