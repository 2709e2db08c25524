"""Show runs and results on one page: unic report RUN_OR_RESULTS... --out DIR"""

import logging
from dataclasses import dataclass
from pathlib import Path

import tyro

from unic.cli.common import parse


@dataclass(frozen=True, kw_only=True)
class Options:
    paths: tyro.conf.Positional[tuple[Path, ...]]
    """Run folders, files of results (.jsonl), doctor.json files, folders with pictures.json."""
    out: Path
    """Folder for the page (index.html), results.md, results.csv and the figures."""
    baseline: str = "best-teacher"
    """What encoders are compared with: the best teacher of each evaluation, or one encoder by its name."""


def run(words: list[str]) -> int:
    options = parse(Options, words, "report")

    from unic.tools.report.page import write_report

    logging.basicConfig(level=logging.WARNING, format="%(message)s", force=True)
    print(write_report(options.paths, options.out, options.baseline))
    return 0
