"""report: from runs and results to a page that shows them."""

import logging
from dataclasses import dataclass
from pathlib import Path

from unic.cli.options import parse


def report(words: list[str]) -> int:
    """Show runs and results on one page: unic report RUN_OR_RESULTS... --out DIR"""
    from unic.tools.report.page import write_report

    options = parse(_options(), words, "report")
    logging.basicConfig(level=logging.WARNING, format="%(message)s", force=True)
    page = write_report(options.paths, options.out, options.baseline)
    print(page)
    return 0


def _options() -> type:
    import tyro

    @dataclass(frozen=True, kw_only=True)
    class Options:
        paths: tyro.conf.Positional[tuple[Path, ...]]
        """Run folders, files of results (.jsonl), doctor.json files, folders with pictures.json."""
        out: Path
        """Folder for the page (index.html), results.md, results.csv and the figures."""
        baseline: str = "best-teacher"
        """What encoders are compared with: the best teacher of each evaluation, or one encoder by its name."""

    return Options
