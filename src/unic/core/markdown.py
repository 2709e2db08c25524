"""Markdown: tables, and names that come from users inside them."""

from collections.abc import Sequence


def table(header: Sequence[str], rows: Sequence[Sequence[str]], *, numbers_from: int | None = None) -> str:
    """A table without a line's end at its end.

    header, rows: Markdown; a sign that would end a cell, or its line, is escaped here.
    numbers_from: first column that is aligned to the right.
    """
    count = len(header) if numbers_from is None else numbers_from
    ruler = [":--" if column < count else "--:" for column in range(len(header))]
    return "\n".join(f"| {' | '.join(map(_cell, line))} |" for line in [header, ruler, *rows])


def escape(text: str) -> str:
    """A name as text on one line: it can be no HTML and no link."""
    return " ".join(text.splitlines()).replace("\\", "\\\\").replace("<", "&lt;").replace("](", "]\\(")


def _cell(markdown: str) -> str:
    return " ".join(markdown.splitlines()).replace("|", "\\|")
