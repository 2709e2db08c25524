"""The README's commands, run as they stand there, on a few images."""

import re
import shlex
import shutil
from pathlib import Path

import layouts
import numpy as np
import pytest
import timm
import torch
from PIL import Image

import unic
from unic.cli import main
from unic.data.datasets.digits import write_digits
from unic.teachers import SCHEMES, TEACHERS
from unic.teachers.load import load_teacher

README = (Path(__file__).parents[1] / "README.md").read_text()
BLOCKS = re.findall(r"```(\w*)\n(.*?)```", README, flags=re.DOTALL)


def commands() -> list[list[str]]:
    lines = [line for kind, block in BLOCKS if not kind for line in block.splitlines()]
    return [shlex.split(line, comments=True)[1:] for line in lines if line.startswith("unic ")]


def python(what: str) -> str:
    """The Python of the README in which `what` stands."""
    (block,) = (block for kind, block in BLOCKS if kind == "python" and what in block)
    return block


@pytest.fixture(scope="module")
def workplace(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with what the README speaks of: photos/, more_photos.txt, labelled/, unic.pth, and a mirror."""
    folder = tmp_path_factory.mktemp("readme")
    write_digits(folder / "labelled")
    for split, num in (("train", 7), ("test", 1)):
        for digit in (folder / "labelled" / split).iterdir():
            for path in sorted(digit.iterdir())[num:]:
                path.unlink()
    shutil.copytree(folder / "labelled" / "train", folder / "photos")
    paths = sorted(str(path) for path in (folder / "labelled" / "test").rglob("*.png"))
    (folder / "more_photos.txt").write_text("\n".join(paths))
    write_dtd(folder / "sets" / "dtd")
    write_scenes(folder / "scenes")
    model = layouts.vit(width=64, depth=2, patch_size=16, image_size=32)
    torch.save(layouts.published(model), folder / "unic.pth")
    (folder / "mirror").mkdir()
    dino = timm.create_model("vit_small_patch16_224", num_classes=0)
    torch.save(dino.state_dict(), folder / "mirror" / "dino_deitsmall16_pretrain.pth")
    return folder


def write_dtd(root: Path) -> None:
    """A part of DTD: three images of each class to learn from and one to test on."""
    rng = np.random.default_rng(0)
    (root / "labels").mkdir(parents=True)
    parts: dict[str, list[str]] = {"train": [], "val": [], "test": []}
    for number in range(47):
        name = f"texture{number:02}"
        (root / "images" / name).mkdir(parents=True)
        for i, part in enumerate(("train", "train", "val", "test")):
            Image.fromarray(rng.integers(0, 256, (8, 8, 3), dtype=np.uint8)).save(
                root / "images" / name / f"{name}_{i}.jpg"
            )
            parts[part].append(f"{name}/{name}_{i}.jpg")
    for part, lines in parts.items():
        (root / "labels" / f"{part}1.txt").write_text("\n".join(lines) + "\n")


def write_scenes(root: Path) -> None:
    """Two images to learn from and one to test on, bright above and dark below, with the README's dataset.json."""
    rows = np.repeat(np.array([0, 1], dtype=np.uint8), 16)[:, None].repeat(48, 1)
    for part, count in (("train", 2), ("val", 1)):
        for kind, pixels in (("images", np.stack([250 - 200 * rows] * 3, axis=2)), ("annotations", rows)):
            (root / kind / part).mkdir(parents=True)
            for i in range(count):
                Image.fromarray(pixels).save(root / kind / part / f"{i}.png")
    (note,) = re.findall(r'`(\{"classes".*?\})`', README)
    (root / "dataset.json").write_text(note)


@pytest.fixture(autouse=True)
def there(workplace: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(workplace)
    monkeypatch.setenv("UNIC_CACHE", str(workplace / "cache"))
    monkeypatch.setenv("UNIC_MIRROR", str(workplace / "mirror"))


def test_the_commands_and_the_python_of_the_readme_run(capsys: pytest.CaptureFixture[str]):
    verbs = [" ".join(words[:2]) for words in commands()]
    assert verbs == [
        "distill small_images", "evaluate runs/mine", "teachers list", "teachers fetch", "teachers check",
        "distill unic_vitb16", "import unic.pth", "export runs/mine", "datasets list", "datasets check",
        "evaluate runs/mine", "evaluate runs/mine", "evaluate runs/mine", "report runs/mine", "visualize runs/mine",
        "teachers check",
    ], "the README changed; see that every command in it is still run here"  # fmt: skip
    for words in commands():
        assert main(words) == 0, words
    shown = capsys.readouterr().out
    assert "efficientnet_lite0" in shown and "GFLOP" in shown
    names = {"images": torch.zeros(2, 3, 32, 32, dtype=torch.uint8)}
    exec(compile(python("encoder(images)"), "README.md", "exec"), names)
    tokens = names["tokens"]
    assert tokens.cls.shape[0] == 2 and tokens.patches.ndim == 3
    exec(compile(python("head="), "README.md", "exec"), names)
    assert names["published"].dim == 64 and names["like_lite0"].dim == 1280


def test_the_teacher_that_the_readme_adds_can_be_learned_from(workplace: Path):
    """The file as the README has it, weights with its keys: `--plugin` brings the teacher into a run."""
    model = timm.create_model("vit_tiny_patch16_224", num_classes=0).eval()
    torch.save({f"backbone.{key}": tensor for key, tensor in model.state_dict().items()}, "my_vit.pth")
    Path("my_teacher.py").write_text(python("TEACHERS.add"))
    try:
        command = (
            "distill debug --plugin my_teacher.py --teachers my_vit efficientnet_lite0?image_size=64 "
            "--data.root photos --optim.epochs 0.2 --optim.warmup-epochs 0 --out runs/own"
        )
        assert main(shlex.split(command)) == 0
        student = unic.load("runs/own", head="my_vit")
        assert student.widths == (192, 192)
        images = torch.randint(0, 256, (2, 3, 224, 224), dtype=torch.uint8)
        with torch.no_grad():
            expected = model.forward_features(images / 127.5 - 1)
        torch.testing.assert_close(
            load_teacher("my_vit").eval()(images).cls, expected[:, 0], rtol=1e-4, atol=1e-4
        )
    finally:
        TEACHERS._entries.pop("my_vit", None)


def test_recipes_and_teachers_named_in_the_readme_exist():
    from unic.recipes import RECIPES

    assert {"small_images", "unic_vitb16", "unic_vitl14", "unic_vitl14_336"} <= RECIPES.keys()
    named = re.findall(
        r"`((?:efficientnet_lite|dino|ibot|deit3|dbotft|metaclip|naver_unic)[a-z0-9_]*)`", README
    )
    assert len(set(named)) > 10
    for name in named:
        assert name in TEACHERS, name
    for scheme in re.findall(r"`([a-z_]+):<", README):
        assert scheme in SCHEMES, scheme
