"""From a published file through everything and back: nothing is lost on the way."""

import re
from pathlib import Path

import pytest
import torch
from torch import Tensor

import unic
from unic.models.config import StudentConfig
from unic.models.student import build_encoder
from unic.models.weights import read_file
from unic.students.export import export
from unic.students.import_student import import_student
from unic.students.load_encoder import read_student
from unic.students.loaded_student import LoadedStudent
from unic.teachers.load import load_teacher


def test_a_published_student_imported_and_exported_in_dinov2_s_format_is_identical(
    unic_pth: Path, tmp_path: Path
):
    import_student(unic_pth, tmp_path / "run")
    export(read_student(tmp_path / "run"), "dinov2", tmp_path / "out")
    (file,) = (tmp_path / "out").glob("*.pth")
    exported = read_file(file)
    published = {
        re.sub(r"^module\.encoder\.(blocks\.0\.)?", lambda found: "blocks." if found[1] else "", key): tensor
        for key, tensor in read_file(unic_pth)["model"].items()
        if key.startswith("module.encoder.")
    }
    assert exported.keys() == published.keys()
    for key in exported.keys() - {"mask_token"}:  # which no student trains, and timm does not have
        assert torch.equal(exported[key], published[key]), key


@pytest.mark.parametrize("to", ["safetensors", "dinov2"])
def test_what_was_exported_can_be_imported_again(to: str, unic_pth: Path, tmp_path: Path, images: Tensor):
    student = read_student(unic_pth)
    export(student, to, tmp_path / "out")
    (file,) = (path for path in (tmp_path / "out").iterdir() if path.name.startswith(("encoder.", "unic_l.")))
    again = import_student(file, tmp_path / "run")
    expected, got = student.encoder(images), again.encoder(images)
    assert torch.equal(expected.cls, got.cls) and torch.equal(expected.patches, got.patches)


def test_an_unusual_number_of_heads_survives_dinov2_s_format(tmp_path: Path):
    cfg = StudentConfig(model=None, image_size=16, width=64, depth=2, heads=8, patch_size=8)
    encoder = build_encoder(cfg, seed=0).eval()
    saved = LoadedStudent(name="s", cfg=cfg, encoder=encoder, source=tmp_path / "s.safetensors")
    export(saved, "dinov2", tmp_path / "out")
    images = torch.rand(2, 3, 16, 16, generator=torch.Generator().manual_seed(0))
    with torch.inference_mode():
        again, expected = unic.load(tmp_path / "out" / "s.pth")(images), encoder(images)
    assert torch.equal(again.cls, expected.cls) and torch.equal(again.patches, expected.patches)


@pytest.mark.parametrize("to", ["hf", "hub"])
def test_what_was_exported_for_a_library_is_a_teacher_by_that_library(
    to: str, unic_pth: Path, tmp_path: Path, images: Tensor
):
    """Above all: it is normalised once."""
    student = read_student(unic_pth)
    export(student, to, tmp_path / "out")
    reference = {"hf": f"hf:{tmp_path}/out", "hub": f"hub:{tmp_path}/out:encoder?image_size=32"}[to]
    expected, got = student.encoder(images), load_teacher(reference)(images)
    torch.testing.assert_close(got.cls, expected.cls, rtol=1e-4, atol=1e-4)
    torch.testing.assert_close(got.patches, expected.patches, rtol=1e-4, atol=1e-4)


def test_an_exported_student_is_a_teacher(unic_pth: Path, tmp_path: Path, images: Tensor):
    student = read_student(unic_pth)
    export(student, "safetensors", tmp_path / "out")
    teacher = load_teacher(f"file:{tmp_path}/out/encoder.safetensors")
    assert teacher.name == "out" and torch.equal(teacher(images).cls, student.encoder(images).cls)
    larger = load_teacher(f"file:{tmp_path}/out/encoder.safetensors?image_size=64")
    assert larger.grid == (4, 4)
