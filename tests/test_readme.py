"""The README's commands, run as they stand there, on a few images."""

import re
import shlex
import shutil
from pathlib import Path

import pytest
import torch

from unic.cli import main
from unic.data.datasets.digits import write_digits
from unic.plugins import import_plugin
from unic.teachers import TEACHERS

README = (Path(__file__).parents[1] / "README.md").read_text()
BLOCKS = re.findall(r"```(\w*)\n(.*?)```", README, flags=re.DOTALL)


def commands() -> list[list[str]]:
    lines = [line for kind, block in BLOCKS if not kind for line in block.splitlines()]
    return [shlex.split(line, comments=True)[1:] for line in lines if line.startswith("unic ")]


@pytest.fixture
def workplace(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder with the images that the README speaks of: photos/, more_photos.txt, labelled/."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("UNIC_CACHE", str(tmp_path / "cache"))
    write_digits(tmp_path / "labelled")
    for split, num in (("train", 7), ("test", 1)):
        for folder in (tmp_path / "labelled" / split).iterdir():
            for path in sorted(folder.iterdir())[num:]:
                path.unlink()
    shutil.copytree(tmp_path / "labelled" / "train", tmp_path / "photos")
    paths = sorted(str(path) for path in (tmp_path / "labelled" / "test").rglob("*.png"))
    (tmp_path / "more_photos.txt").write_text("\n".join(paths))
    return tmp_path


def test_the_commands_and_the_python_of_the_readme_run(workplace: Path, capsys: pytest.CaptureFixture[str]):
    assert len(commands()) == 2, "the README changed; see that every command in it is still run here"
    for words in commands():
        assert main(words) == 0
    assert "efficientnet_lite0" in capsys.readouterr().out
    (python,) = (block for kind, block in BLOCKS if kind == "python" and "unic.load" in block)
    images = torch.zeros(2, 3, 32, 32, dtype=torch.uint8)
    names = {"images": images}
    exec(compile(python, "README.md", "exec"), names)
    tokens = names["tokens"]
    assert tokens.cls.shape[0] == 2 and tokens.patches.ndim == 3


def test_the_plugin_of_the_readme_registers_its_teacher(tmp_path: Path):
    (python,) = (block for kind, block in BLOCKS if kind == "python" and "TEACHERS.add" in block)
    plugin = tmp_path / "readme_plugin.py"
    plugin.write_text(python)
    import_plugin(plugin)
    assert TEACHERS["my_vit"].licence == "CC BY 4.0"
    del TEACHERS._entries["my_vit"]


def test_recipes_teachers_and_options_named_in_the_readme_exist():
    from unic.recipes import RECIPES

    assert {"small_images", "unic_vitb16"} <= RECIPES.keys()
    for name in re.findall(r"`(efficientnet_lite\d)`", README):
        assert name in TEACHERS
