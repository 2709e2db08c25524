"""The model card: the strictest licence first, no invented fact, and code that runs as it stands."""

import hashlib
import json
import re
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from unic import recipes
from unic.models.config import StudentConfig
from unic.models.student import build_encoder
from unic.students.export import EXPORTS, export
from unic.students.export.licences import Restriction, hub_name, restriction, statement, strictest
from unic.students.export.model_card import model_card
from unic.students.export.parity import Difference, Parity
from unic.students.load_encoder import read_student
from unic.students.loaded_student import LoadedStudent
from unic.students.read_run import read_run
from unic.train.loop import train

TEACHERS = ("timm:resnet10t?pretrained=0&image_size=32",)
PARITY = Parity(
    library="timm",
    version="1.0",
    images=("a.jpg",),
    tolerance=1e-4,
    cls=Difference(max=2e-5, mean=1e-6),
    patches=Difference(max=3e-5, mean=2e-6),
)


@pytest.fixture(scope="module")
def saved(tmp_path_factory: pytest.TempPathFactory) -> LoadedStudent:
    """A run of two steps on 16 images, with two results."""
    root = tmp_path_factory.mktemp("photos")
    rng = np.random.default_rng(0)
    for number in range(16):
        pixels = rng.integers(0, 256, (6, 5, 3), dtype=np.uint8)
        Image.fromarray(pixels).resize((40, 36)).save(root / f"{number}.png")
    base = recipes.debug()
    recipe = replace(
        base,
        teachers=TEACHERS,
        data=replace(base.data, root=(str(root),)),
        optim=replace(base.optim, batch_size=8, epochs=1.0, warmup_epochs=0.5),
        speed=replace(base.speed, workers=0),
    )
    folder = tmp_path_factory.mktemp("runs") / "my run"
    train(recipe, folder, torch.device("cpu"))
    record = {
        "model": "my run",
        "dataset": "digits",
        "evaluation": "knn",
        "metric": "top-1",
        "protocol": "knn-1",
    }
    lines = [
        {**record, "value": 70.0},
        {**record, "value": 81.25},
        {**record, "value": float("nan")},
        {**record, "value": "no number"},
        {**record, "dataset": "a|b <i>", "value": 3.0},
        {"of": "another kind"},
    ]
    (folder / "results.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    return read_run(folder)


def bare() -> LoadedStudent:
    """An encoder of which nothing else is known."""
    cfg = StudentConfig(model=None, image_size=16, width=8, depth=1, heads=2, patch_size=8)
    encoder = build_encoder(cfg, seed=0).eval()
    return LoadedStudent(name="found", cfg=cfg, encoder=encoder, source=Path("nowhere"))


def card(student: LoadedStudent) -> str:
    return model_card(
        student, head=None, what="A file", library="timm", usage="pass", notes="Mind it.", parity=PARITY
    )


def test_a_run_says_all_that_was_recorded(saved: LoadedStudent):
    text = card(saved)
    assert text.startswith(
        "---\nlibrary_name: timm\nlicense: unknown\npipeline_tag: image-feature-extraction\n"
    )
    assert "# my run" in text and "2 blocks, width 32, patches of 8 px, images of 32 px" in text
    sha = saved.facts["teachers"]["resnet10t"]
    assert f"| resnet10t | `{TEACHERS[0]}` | unknown | `{sha}` |" in text
    folder = Path(saved.config["data"]["root"][0])
    assert "- Images: 16" in text and f"`{folder.parent.name}/{folder.name}`" in text
    assert str(folder.parent) not in text, (
        "a card is published, and paths of this machine are nobody's business"
    )
    assert (
        "| Batch size | 8 |" in text and "| Steps done | 2 |" in text and "| Teacher dropping | 0.5 |" in text
    )
    assert "| my run | digits | knn top-1 | 81.25 % | knn-1 |" in text and "nan" not in text
    assert text.count("| digits |") == 1, "of an evaluation that was repeated, the last result counts"
    assert r"| my run | a\|b &lt;i> | knn top-1 | 3 % | knn-1 |" in text
    assert "| CLS | 2.00e-05 | 1.00e-06 |" in text and "Mind it." in text
    (whole,) = re.findall(r"```json\n(.*?)```", text, re.DOTALL)
    recipe = json.loads((saved.source / "config.json").read_text())
    shown = json.loads(whole)
    assert shown.pop("data").keys() == recipe.pop("data").keys() and shown == recipe


def test_what_is_not_known_is_said_to_be_not_recorded():
    text = card(bare())
    for line in (
        "Teachers: not recorded.",
        "- Images: not recorded\n- Folders: not recorded",
        "| recipe | not recorded |",
    ):
        assert line in text
    assert "Results: not recorded." in text and "Most restrictive teacher licence: not recorded" in text
    assert "license: unknown\n" in text


def test_a_hash_that_was_not_kept_is_not_recorded():
    text = card(replace(bare(), teachers={"dino_vitb16": "dino_vitb16"}, config={"seed": 1}))
    assert "| dino_vitb16 | `dino_vitb16` | Apache-2.0 | not recorded |" in text
    assert "license: apache-2.0\n" in text


def test_the_card_of_a_student_with_a_non_commercial_teacher_says_so_before_anything_else():
    from unic.teachers import TEACHERS as KNOWN  # whichever teacher has such a licence

    names = [name for name in KNOWN if restriction(KNOWN[name].licence) == Restriction.NON_COMMERCIAL]
    teacher = names[0]
    student = replace(
        bare(),
        config={"seed": 1},
        teachers={"dino_vitb16": "dino_vitb16", teacher: teacher, "mine": "file:/mine.pth"},
    )
    body = card(student).split("---\n")[2].strip().splitlines()
    assert body[0] == "# found"
    assert body[2].startswith(f"**Most restrictive teacher licence: {KNOWN[teacher].licence} ({teacher}).**")
    assert "may not be used commercially" in body[2] and body[2].endswith("Licence unknown: mine.")


def test_the_weights_a_run_started_from_bind_it_too():
    teachers = {"dino_vitb16": "dino_vitb16"}
    text = card(replace(bare(), teachers=teachers, config={"start": "/home/me/runs/other"}))
    assert "**Most restrictive teacher licence: unknown (the weights it started from, runs/other).**" in text
    assert "license: unknown\n" in text and "| Started from | runs/other |" in text


def test_weights_from_elsewhere_have_a_licence_of_their_own_that_nobody_recorded():
    """An imported file: its teachers may be permissive, it need not be; and no recipe is made up for it."""
    imported = {"file": "unic.pth", "sha256": "ab12", "format": "published UNIC", "epoch": 99, "path": None}
    student = replace(
        bare(),
        teachers={"dino_vitb16": "dino_vitb16"},
        config={"teachers": ["dino_vitb16"], "seed": 0},
        facts={"step": 0, "teachers": {}, "imported": imported},
    )
    text = card(student)
    assert "license: unknown\n" in text
    assert "taken from unic.pth; their own licence is not recorded, and binds as well." in text
    assert (
        "| sha256 | `ab12` |" in text and "| epoch | `99` |" in text and "| recipe | not recorded |" in text
    )
    assert "Steps done" not in text and "Seed" not in text


def test_the_released_encoder_of_a_run_knows_its_teachers_from_the_recipe_beside_it(saved: LoadedStudent):
    released = read_student(saved.source / "encoder.safetensors")
    text = card(released)
    assert f"| resnet10t | `{TEACHERS[0]}` | unknown | not recorded |" in text
    assert "| Batch size | 8 |" in text and "81.25 %" in text


@pytest.mark.parametrize(
    ("licence", "expected"),
    [
        ("Apache-2.0", Restriction.PERMISSIVE),
        ("MIT", Restriction.PERMISSIVE),
        ("CC BY 4.0", Restriction.PERMISSIVE),
        ("CC-BY-SA-4.0", Restriction.SHARE_ALIKE),
        ("GPL-3.0", Restriction.SHARE_ALIKE),
        ("CC BY-NC-SA 4.0", Restriction.NON_COMMERCIAL),
        ("CC BY-NC 4.0", Restriction.NON_COMMERCIAL),
        ("FAIR Noncommercial Research License", Restriction.NON_COMMERCIAL),
        ("Apache-2.0 (code), CC BY-NC 4.0 (weights)", Restriction.NON_COMMERCIAL),
        ("CC BY-ND 4.0", Restriction.UNKNOWN),
        ("not stated beside the weights; ask their authors", Restriction.UNKNOWN),
        ("permission of the committee", Restriction.UNKNOWN),
        (None, Restriction.UNKNOWN),
        ("", Restriction.UNKNOWN),
    ],
)
def test_licences_are_ordered_by_what_they_ask_for(licence: str | None, expected: Restriction):
    assert restriction(licence) == expected


def test_the_strictest_licences_are_named_and_unknown_ones_beside_them():
    licences = {
        "a": "Apache-2.0",
        "b": "CC BY-NC 4.0",
        "c": None,
        "d": "CC BY-NC-SA 4.0",
        "e": "CC BY-NC 4.0",
    }
    assert strictest(licences) == ["b", "d", "e"]
    assert statement(licences).startswith(
        "**Most restrictive teacher licence: CC BY-NC 4.0 (b, e); CC BY-NC-SA 4.0 (d).** Weights derived"
    )
    assert statement(licences).endswith("Licence unknown: c.") and hub_name(licences) == "other"
    assert statement({"a": "Apache-2.0"}) == "**Most restrictive teacher licence: Apache-2.0 (a).**"
    assert hub_name({"a": "Apache-2.0", "b": "CC BY-NC 4.0"}) == "cc-by-nc-4.0"
    assert hub_name({"a": "Apache-2.0", "b": "MIT"}) == "other" and hub_name({}) == "unknown"


FORMATS = [
    pytest.param(("timm", "hub", "dinov2", "safetensors"), id="timm"),
    pytest.param(("hf",), marks=pytest.mark.slow, id="hf"),
    pytest.param(("onnx",), marks=pytest.mark.slow, id="onnx"),
]


def test_the_card_of_every_format_is_run_below():
    assert {to for param in FORMATS for to in param.values[0]} == set(EXPORTS)


@pytest.mark.parametrize("formats", FORMATS)
def test_the_code_of_the_card_runs_in_the_exported_folder(
    formats: tuple[str, ...], saved: LoadedStudent, tmp_path: Path
):
    """In a process of its own, without unic."""
    code = "import os, sys\n"
    for to in formats:
        pytest.importorskip({"hf": "transformers", "onnx": "onnxscript"}.get(to, "timm"))
        export(saved, to, tmp_path / to)
        text = (tmp_path / to / "README.md").read_text()
        assert "license: unknown\n" in text and "on 2 photographs" in text
        (block,) = re.findall(r"```python\n(.*?)```", text, re.DOTALL)
        shapes = "cls.shape == (1, 32) and patches.shape == (1, 16, 32)"
        code += f"os.chdir({str(tmp_path / to)!r})\n{block}\nassert {shapes}, {to!r}\ndel cls, patches\n"
    code += "assert 'unic' not in sys.modules\n"
    done = subprocess.run([sys.executable, "-B", "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


def test_the_manifest_has_the_sum_of_every_file(saved: LoadedStudent, tmp_path: Path):
    export(saved, "safetensors", tmp_path / "out", head="resnet10t")
    manifest = json.loads((tmp_path / "out/manifest.json").read_text())
    assert set(manifest) == {"README.md", "encoder.safetensors", "heads.safetensors", "parity.json"}
    for name, facts in manifest.items():
        assert hashlib.sha256((tmp_path / "out" / name).read_bytes()).hexdigest() == facts["sha256"]
    assert "heads.safetensors holds" in (tmp_path / "out/README.md").read_text()
