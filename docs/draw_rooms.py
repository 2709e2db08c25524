"""Draws the rooms of the package into docs/architecture.md, from the imports that stand in the code: `make picture`.

A room is a folder of src/unic, or a file beside them. Rooms of one height stand on one floor; an arrow goes from a room
to one that it imports, and is left out where a longer way of arrows leads there too.
"""

import ast
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
PACKAGE = ROOT / "src" / "unic"
PAGE = ROOT / "docs" / "architecture.md"
BEGIN, END = "<!-- rooms: drawn by `make picture` -->\n", "<!-- end of rooms -->"

Graph = dict[str, set[str]]


def imports_of_rooms() -> Graph:
    """For each room, those that it imports anywhere, also inside functions."""
    graph: Graph = {}
    for path in sorted(PACKAGE.rglob("*.py")):
        own = room_of(path.relative_to(PACKAGE).with_suffix("").parts)
        for name in imported_modules(ast.parse(path.read_text())):
            graph.setdefault(own, set()).add(room_of(tuple(name.split(".")[1:])))
    rooms = graph.keys() | {room for others in graph.values() for room in others}
    return {room: graph.get(room, set()) - {room} for room in sorted(rooms)}


def room_of(parts: tuple[str, ...]) -> str:
    return parts[0] if parts and parts[0] != "__init__" else "unic"


def imported_modules(tree: ast.AST) -> set[str]:
    modules = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            modules |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module == "unic":
            modules |= {f"unic.{alias.name}" for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            modules.add(node.module or "")
    return {name for name in modules if name.split(".")[0] == "unic" and name != "unic"}


def floors(graph: Graph) -> list[list[str]]:
    """Rooms by the longest way down from them, the highest floor first."""

    def height(room: str) -> int:
        return 1 + max((height(other) for other in graph[room]), default=-1)

    heights = {room: height(room) for room in graph}
    return [
        [room for room in graph if heights[room] == level] for level in range(max(heights.values()), -1, -1)
    ]


def arrows(graph: Graph) -> list[tuple[str, str]]:
    """Without those that a longer way makes plain."""

    def below(room: str) -> set[str]:
        return graph[room].union(*(below(other) for other in graph[room]))

    return [
        (room, other)
        for room, others in graph.items()
        for other in sorted(others)
        if not any(other in below(between) for between in others)
    ]


def mermaid(graph: Graph) -> str:
    lines = ["```mermaid", "flowchart TD"]
    for number, rooms in enumerate(floors(graph)):
        lines.append(f'    subgraph floor{number}[" "]')
        lines += [f'        {room}["{room}{"/" if (PACKAGE / room).is_dir() else ""}"]' for room in rooms]
        lines.append("    end")
    lines += [f"    {room} --> {other}" for room, other in arrows(graph)]
    return "\n".join([*lines, "```", ""])


def page_with(picture: str, page: str) -> str:
    before, _, rest = page.partition(BEGIN)
    return before + BEGIN + picture + END + rest.partition(END)[2]


if __name__ == "__main__":
    PAGE.write_text(page_with(mermaid(imports_of_rooms()), PAGE.read_text()))
    print(f"drawn into {PAGE.relative_to(ROOT)}")
