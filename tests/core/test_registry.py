"""Registries that fill themselves, plugins, and the sentence for a name that does not exist."""

import importlib
import sys
from pathlib import Path

import pytest
import timm

from unic.core.errors import ConfigError
from unic.core.registry import Registry, import_plugin, unknown
from unic.models.timm_encoder import create_timm

REGISTRY = """
from unic.core.registry import Registry
THINGS = Registry("thing", "{package}")
"""


@pytest.fixture
def package(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, request: pytest.FixtureRequest) -> Path:
    """An empty package with a registry of its own, THINGS, of a name that no other test uses."""
    folder = tmp_path / f"package_of_{abs(hash(request.node.name))}"
    folder.mkdir()
    (folder / "__init__.py").write_text(REGISTRY.format(package=folder.name))
    monkeypatch.syspath_prepend(tmp_path)
    return folder


def write(package: Path, name: str, code: str) -> None:
    (package / f"{name}.py").write_text(f"from {package.name} import THINGS\n{code}\n")
    importlib.invalidate_caches()


def things(package: Path) -> Registry:
    return importlib.import_module(package.name).THINGS


def test_a_registry_has_what_the_files_beside_it_add(package: Path):
    write(package, "a", "THINGS.add('one', 1)")
    write(package, "b", "THINGS.add('two', 2)")
    assert list(things(package)) == ["one", "two"] and things(package)["two"] == 2


def test_a_file_may_look_up_what_the_files_before_it_added(package: Path):
    write(package, "a", "THINGS.add('one', 1)")
    write(package, "b", "THINGS.add('two', THINGS['one'] + 1)")
    assert things(package)["two"] == 2


def test_a_file_that_fails_to_import_gives_the_same_error_again_and_never_a_part_of_the_names(package: Path):
    write(package, "a", "THINGS.add('one', 1)")
    write(package, "b", "THINGS.add('half', 2)\nimport nothing_like_it")
    write(package, "c", "THINGS.add('three', 3)")
    registry = things(package)
    for ask in (lambda: list(registry), lambda: registry["one"], lambda: "three" in registry):
        with pytest.raises(ModuleNotFoundError, match="nothing_like_it"):
            ask()


def test_a_registry_is_complete_once_the_file_is_mended(package: Path):
    write(package, "a", "THINGS.add('one', 1)")
    write(package, "b", "THINGS.add('two', 2)\nimport nothing_like_it")
    with pytest.raises(ModuleNotFoundError):
        list(things(package))
    write(package, "b", "THINGS.add('two', 2)  # mended, and of another length than before")
    assert list(things(package)) == ["one", "two"]


@pytest.fixture
def runs(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Where plugins of these tests note that they were run."""
    notes: list[str] = []
    monkeypatch.setattr(sys, "notes_of_plugins", notes, raising=False)
    return notes


def plugin(path: Path, note: str) -> Path:
    path.parent.mkdir(exist_ok=True)
    path.write_text(f"import sys\nsys.notes_of_plugins.append({note!r})\n")
    return path


def test_two_plugins_of_one_file_name_are_both_run(tmp_path: Path, runs: list[str]):
    import_plugin(plugin(tmp_path / "first" / "mine.py", "first"))
    import_plugin(plugin(tmp_path / "second" / "mine.py", "second"))
    assert runs == ["first", "second"]


def test_a_plugin_is_run_once_however_it_is_named(
    tmp_path: Path, runs: list[str], monkeypatch: pytest.MonkeyPatch
):
    path = plugin(tmp_path / "first" / "mine.py", "first")
    (tmp_path / "link.py").symlink_to(path)
    monkeypatch.chdir(tmp_path)
    for name in (path, Path("first/mine.py"), Path("first/../first/mine.py"), Path("link.py")):
        import_plugin(name)
    assert runs == ["first"]


def test_an_unknown_name_is_answered_with_the_nearest():
    assert unknown("fruit", "aple", ["apple", "kiwi"]) == "unknown fruit 'aple'; did you mean apple?"


def test_a_few_names_are_all_listed_when_none_is_near():
    assert unknown("fruit", "zzz", ["pear", "apple"]) == "unknown fruit 'zzz'; known: apple, pear"


def test_many_names_are_counted_instead_of_listed_with_the_command_that_lists_them():
    names = [f"apple{number}" for number in range(2000)]
    assert unknown("fruit", "zzz", names, list_command="fruits list") == (
        "unknown fruit 'zzz', and none of the 2,000 known ones is near; `fruits list` lists them"
    )
    near = unknown("fruit", "apple", names, list_command="fruits list")
    assert near.count("apple") <= 1 + 5 and len(near) < 200


def test_an_unknown_model_of_timm_is_one_short_sentence():
    with pytest.raises(ConfigError) as error:
        create_timm("qqqqqqqq")
    assert f"{len(timm.list_models()):,} known ones" in str(error.value) and len(str(error.value)) < 250
