"""The house rules that a machine can check: who may import whom, no code from files, no hidden randomness."""

import ast
import re
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

import unic

ROOT = Path(unic.__file__).parent
FILES = sorted(ROOT.rglob("*.py"))

# A file imports its own room or lower floors. Files at the top by name, rooms by folder.
RANKS = {
    "version": 0, "core": 0, "method": 1, "models": 2,
    "teachers": 3, "data": 3, "kernels": 3, "students": 4,
    "train": 5, "evals": 5, "tools": 6,
    "recipes": 6, "cli": 7, "__init__": 7,
}  # fmt: skip
FORBIDDEN_CALLS = {
    "eval",
    "exec",
    "compile",
    "os.system",
    "pickle.load",
    "pickle.loads",
    "torch.set_rng_state",
}
GLOBAL_RANDOMNESS = {"torch.manual_seed", "np.random.seed", "random.seed", "torch.seed"}


def room(module: str) -> str:
    """ "unic.train.loop" -> "train"; "unic" -> "__init__"."""
    parts = module.split(".")
    return parts[1] if len(parts) > 1 else "__init__"


def module_name(path: Path) -> str:
    parts = ["unic", *path.relative_to(ROOT).with_suffix("").parts]
    return ".".join(parts[:-1] if parts[-1] == "__init__" and len(parts) > 2 else parts)


def imports(tree: ast.AST) -> set[str]:
    found = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names if alias.name.split(".")[0] == "unic"}
        elif isinstance(node, ast.ImportFrom) and (node.module or "").split(".")[0] == "unic":
            if node.module == "unic":
                found |= {f"unic.{alias.name}" for alias in node.names}
            else:
                found.add(node.module or "")
    return found


@pytest.mark.parametrize("path", FILES, ids=lambda p: str(p.relative_to(ROOT)))
def test_a_file_imports_its_own_package_or_lower_ranks(path: Path):
    own = room(module_name(path))
    for name in imports(ast.parse(path.read_text())):
        other = room(name)
        assert other in RANKS, f"{name} has no rank; add it to RANKS on purpose"
        same_floor_file = RANKS[own] == RANKS[other] == 0
        assert other == own or same_floor_file or RANKS[other] < RANKS[own], (
            f"{module_name(path)} imports {name}"
        )


def test_only_the_command_line_imports_tools():
    for path in FILES:
        if room(module_name(path)) not in ("tools", "cli"):
            names = imports(ast.parse(path.read_text()))
            assert not any(room(name) == "tools" for name in names), path


def test_no_two_classes_share_a_name():
    places: dict[str, list[str]] = {}
    for path in FILES:
        for node in ast.parse(path.read_text()).body:
            if isinstance(node, ast.ClassDef) and not node.name.startswith("_"):
                places.setdefault(node.name, []).append(module_name(path))
    # Every command has its Options, and says so in one word.
    shared = {
        name: modules
        for name, modules in places.items()
        if len(modules) > 1 and not all(module.startswith("unic.cli.") for module in modules)
    }
    assert not shared


def test_the_picture_of_the_rooms_is_drawn_from_these_imports():
    docs = ROOT.parent.parent / "docs"
    if not (docs / "draw_rooms.py").exists():
        pytest.skip("an installed package has no docs")
    found = subprocess.run(
        [sys.executable, "-c", "import draw_rooms as d; print(d.mermaid(d.imports_of_rooms()), end='')"],
        cwd=docs, capture_output=True, text=True, check=True,
    )  # fmt: skip
    assert found.stdout in (docs / "architecture.md").read_text(), "rooms import others now: make picture"


@pytest.mark.parametrize("page", ["docs/architecture.md", "CONTRIBUTING.md"])
def test_every_file_that_a_page_names_is_there(page: str):
    repository = ROOT.parent.parent
    if not (repository / page).exists():
        pytest.skip("an installed package has no docs")
    files = {path.relative_to(repository).as_posix() for path in repository.rglob("*.py")}
    named = set(re.findall(r"[\w/]+\.py\b", (repository / page).read_text())) - {"my.py"}
    assert named
    assert not {name for name in named if not any(f"/{file}".endswith(f"/{name}") for file in files)}


def test_there_is_no_import_cycle():
    graph = {module_name(path): set() for path in FILES}
    for path in FILES:
        for name in imports(top_level(ast.parse(path.read_text()))):
            graph[module_name(path)].add(name)
    done: set[str] = set()

    def visit(name: str, trail: tuple[str, ...]) -> None:
        assert name not in trail, f"import cycle: {' -> '.join([*trail[trail.index(name) :], name])}"
        if name in done:
            return
        for other in sorted(graph.get(name, ())):
            visit(other, (*trail, name))
        done.add(name)

    for name in graph:
        visit(name, ())


def top_level(tree: ast.Module) -> ast.Module:
    """Without functions and `if TYPE_CHECKING`: what is imported when the file is."""
    kept = [node for node in tree.body if isinstance(node, ast.Import | ast.ImportFrom)]
    return ast.Module(body=kept, type_ignores=[])


@pytest.mark.parametrize("path", FILES, ids=lambda p: str(p.relative_to(ROOT)))
def test_no_code_is_run_from_files_and_no_global_generator_is_seeded(path: Path):
    for node in ast.walk(ast.parse(path.read_text())):
        if not isinstance(node, ast.Call):
            continue
        name = ast.unparse(node.func)
        assert name not in FORBIDDEN_CALLS | GLOBAL_RANDOMNESS, f"{path.name}:{node.lineno}: {name}"
        if name == "torch.load":
            keywords = {k.arg: ast.unparse(k.value) for k in node.keywords}
            assert keywords.get("weights_only") == "True", (
                f"{path.name}:{node.lineno}: torch.load without weights_only"
            )
        if name.endswith(".cuda"):
            raise AssertionError(f"{path.name}:{node.lineno}: a device is named; use .to(device)")


def test_the_method_never_waits_for_the_device():
    for path in (ROOT / "method").glob("*.py"):
        if path.name == "representation_metrics.py":  # asked for between steps, never in one
            continue
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute):
                assert node.func.attr not in {"item", "tolist", "cpu", "numpy", "nonzero"}, (
                    f"{path.name}:{node.lineno}"
                )


def test_shapes_are_not_hidden_from_the_checker():
    for path in FILES:
        assert "from __future__ import annotations" not in path.read_text(), path


def test_type_checkers_of_users_are_told_that_the_package_is_typed():
    assert (ROOT / "py.typed").is_file()
    project = ROOT.parents[1] / "pyproject.toml"
    if project.is_file():  # an installed package has none, and has the file for that reason
        data = tomllib.loads(project.read_text())["tool"]["setuptools"]["package-data"]
        assert "py.typed" in data["unic"]


def test_import_unic_is_quick_because_it_does_not_import_torch():
    code = "import sys, unic; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
