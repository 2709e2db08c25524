"""Bringing a student's file into a run folder: every number survives, whole or not at all."""

import errno
import hashlib
import json
import shutil
from pathlib import Path
from typing import Any

import layouts
import pytest
import torch
from safetensors.torch import load_file
from timm.models.vision_transformer import VisionTransformer
from torch import Tensor

from unic.core.dataclass_json import from_dict, to_dict
from unic.core.errors import ConfigError, WeightsError
from unic.core.files import check_folder
from unic.method.config import StatisticsConfig
from unic.models.config import LadderConfig, StudentConfig
from unic.models.student import build_encoder, read_encoder, write_encoder
from unic.students import import_student as importing
from unic.students.foreign_formats import read_published
from unic.students.import_student import import_student
from unic.students.load_encoder import load, load_untrained, read_student

STEP = "checkpoints/step-00000000"


def names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


def backbone(path: Path) -> Path:
    """A plain one in DINOv2's format, without ladder."""
    torch.save(layouts.dinov2_names(layouts.vit()), path)
    return path


def test_every_tensor_of_a_published_file_is_the_same_in_the_run_folder(
    unic_pth: Path, model: VisionTransformer, tmp_path: Path
):
    import_student(unic_pth, tmp_path / "run")
    content = torch.load(unic_pth, weights_only=False)  # of our own making
    weights = load_file(tmp_path / "run" / STEP / "model.safetensors")
    expected: dict[str, Tensor] = {f"encoder.model.{k}": t for k, t in model.state_dict().items()}
    for key, tensor in content["model"].items():
        if key.startswith("module.lp."):
            _, _, heads, teacher, rest = key.split(".", 4)
            expected[f"ladder.{heads}.{layouts.OURS[teacher]}.{rest}"] = tensor
    assert weights.keys() == expected.keys()
    assert all(torch.equal(weights[key], tensor) for key, tensor in expected.items())

    found = load_file(tmp_path / "run" / STEP / "statistics.safetensors")
    assert len(found) == 4 * len(layouts.TEACHERS)
    for teacher, kinds in content["teacher_ft_stats"].items():
        for kind, moments in kinds.items():
            for moment, tensor in moments.items():
                assert torch.equal(found[f"{layouts.OURS[teacher]}.{kind}_{moment}"], tensor.flatten())


def test_an_imported_student_computes_what_its_file_does(unic_pth: Path, tmp_path: Path, images: Tensor):
    student = import_student(unic_pth, tmp_path / "run")
    assert student.name == student.encoder.name == "run" and student.source == tmp_path / "run"
    for head in (None, *layouts.OURS.values()):
        mine, theirs = load(tmp_path / "run", head=head)(images), load(unic_pth, head=head)(images)
        assert torch.equal(mine.cls, theirs.cls) and torch.equal(mine.patches, theirs.patches)
    released = read_encoder(tmp_path / "run" / "encoder.safetensors")
    assert released is not None
    assert released.content_hash() == load(unic_pth).content_hash() == load(tmp_path / "run").content_hash()


def test_the_run_folder_is_what_a_run_writes(unic_pth: Path, tmp_path: Path):
    student = import_student(unic_pth, tmp_path / "run")
    assert names(tmp_path / "run") == ["checkpoints", "config.json", "encoder.safetensors", "imported.json"]
    check_folder(tmp_path / "run" / STEP)
    config = json.loads((tmp_path / "run" / "config.json").read_text())
    assert config == student.config
    assert set(config) == {"teachers", "student", "ladder", "statistics", "seed"}
    assert config["teachers"] == sorted(layouts.OURS.values()) == list(student.teachers)
    assert config["student"] == to_dict(from_dict(StudentConfig, config["student"]))
    assert from_dict(LadderConfig, config["ladder"]) == student.ladder_cfg
    published = StatisticsConfig(warmup_batches=0, std_floor=0.0)
    assert from_dict(StatisticsConfig, config["statistics"]) == published
    assert load_untrained(tmp_path / "run").name == "run untrained"


def test_where_a_student_came_from_is_written_down(unic_pth: Path, tmp_path: Path):
    student = import_student(unic_pth, tmp_path / "run")
    sha256 = hashlib.sha256(unic_pth.read_bytes()).hexdigest()
    origin = json.loads((tmp_path / "run" / "imported.json").read_text())
    assert origin.pop("args")["optim_args"].startswith("__import__")  # a string, never run
    expected = {"file": "unic_l.pth", "sha256": sha256, "format": "published UNIC", "epoch": 199}
    assert origin == expected
    assert student.facts == {"step": 0, "teachers": {}, "imported": expected}


@pytest.mark.parametrize("kind", ["DINOv2", "own"])
def test_an_encoder_alone_becomes_a_run_folder_without_teachers(tmp_path: Path, images: Tensor, kind: str):
    path = tmp_path / "encoder.safetensors"
    if kind == "own":
        cfg = StudentConfig(
            model=None, image_size=32, width=12, depth=1, heads=2, patch_size=8, registers=2, drop_path=0.0
        )
        write_encoder(path, cfg, build_encoder(cfg, seed=3))
    else:
        path = backbone(tmp_path / "b.pth")
    student = import_student(path, tmp_path / "run")
    config = json.loads((tmp_path / "run" / "config.json").read_text())
    assert config == {"teachers": [], "student": to_dict(student.cfg), "seed": 0}
    assert student.ladder is None and not student.standardizers
    assert torch.equal(load(tmp_path / "run")(images).patches, load(path)(images).patches)
    with pytest.raises(ConfigError, match="without its ladder"):
        load(tmp_path / "run", head="a")


def test_an_imported_folder_can_be_moved_and_imported_from(tmp_path: Path, images: Tensor):
    import_student(backbone(tmp_path / "b.pth"), tmp_path / "run")
    shutil.move(tmp_path / "run", tmp_path / "moved")
    again = import_student(tmp_path / "moved" / "encoder.safetensors", tmp_path / "again")
    assert again.encoder.content_hash() == read_student(tmp_path / "moved").encoder.content_hash()


@pytest.mark.parametrize("place", ["run", "deep/er/run", "link"])
def test_a_folder_that_is_new_or_empty_is_taken(tmp_path: Path, place: str):
    (tmp_path / "empty").mkdir()
    (tmp_path / "link").symlink_to(tmp_path / "empty")
    path = backbone(tmp_path / "b.pth")
    assert import_student(path, tmp_path / place).encoder.content_hash() == load(path).content_hash()
    assert import_student(path, tmp_path / "fresh").facts["step"] == 0


def test_a_folder_that_holds_anything_is_left_alone(tmp_path: Path):
    path = backbone(tmp_path / "b.pth")
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / "config.json").write_text("{}")
    (tmp_path / "file").write_text("x")
    for place, words in (
        ("run", r"not empty \(config\.json\); give a new folder"),
        ("file", "is a file; the output must be a folder"),
        ("file/run", "cannot be written to"),
    ):
        with pytest.raises(ConfigError, match=words):
            import_student(path, tmp_path / place)
    assert names(tmp_path) == ["b.pth", "file", "run"] and names(tmp_path / "run") == ["config.json"]


def test_a_file_that_cannot_be_read_leaves_nothing_behind(tmp_path: Path):
    content = layouts.published(layouts.vit())
    del content["teacher_ft_stats"]
    torch.save(content, tmp_path / "u.pth")
    with pytest.raises(WeightsError, match="no statistics"):
        import_student(tmp_path / "u.pth", tmp_path / "run")
    with pytest.raises(FileNotFoundError):
        import_student(tmp_path / "nothing.pth", tmp_path / "run")
    with pytest.raises(ConfigError, match="is a folder; import the file of a student"):
        import_student(tmp_path, tmp_path / "run")
    assert names(tmp_path) == ["u.pth"]


@pytest.mark.parametrize("writer", ["write_json", "write_encoder", "write_weights", "write_folder"])
def test_a_full_disk_at_any_file_leaves_nothing_behind(
    unic_pth: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, writer: str
):
    def full(*_arguments: Any) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(importing, writer, full)
    with pytest.raises(OSError, match="No space left"):
        import_student(unic_pth, tmp_path / "run")
    assert names(tmp_path) == []
    monkeypatch.undo()
    assert len(import_student(unic_pth, tmp_path / "run").standardizers) == len(layouts.TEACHERS)


def test_importing_leaves_the_file_alone(unic_pth: Path, tmp_path: Path):
    before = unic_pth.read_bytes()
    import_student(unic_pth, tmp_path / "run")
    assert unic_pth.read_bytes() == before and names(unic_pth.parent) == ["unic_l.pth"]


def test_what_is_imported_does_not_depend_on_the_day(unic_pth: Path, tmp_path: Path):
    import_student(unic_pth, tmp_path / "a")
    import_student(unic_pth, tmp_path / "b")
    for file in ("config.json", "imported.json", "encoder.safetensors", f"{STEP}/manifest.json"):
        assert (tmp_path / "a" / file).read_bytes() == (tmp_path / "b" / file).read_bytes()
    assert read_published(unic_pth).encoder.content_hash() == load(tmp_path / "b").content_hash()
