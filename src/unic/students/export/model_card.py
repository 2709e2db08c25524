"""The model card: what an exported student is, whose licences bind it, and what is known of how it was made.

Nothing is guessed: what the run does not say is "not recorded".
"""

import json
import math
import re
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from unic.core.markdown import escape, table
from unic.core.results import latest, read_results
from unic.students.export.licences import hub_name, statement
from unic.students.export.parity import Parity
from unic.students.loaded_student import LoadedStudent
from unic.teachers import licence, short_name
from unic.version import __version__

_NOT_RECORDED = "not recorded"

# What a reader asks for first; the whole recipe follows it.
_MAIN_FIELDS = {
    "Started from": "start",
    "Image size, px": "student.image_size",
    "Epochs": "optim.epochs",
    "Batch size": "optim.batch_size",
    "Learning rate": "optim.lr",
    "Weight decay": "optim.weight_decay",
    "Drop path": "student.drop_path",
    "Teacher dropping": "loss.drop_prob",
    "Precision": "speed.precision",
    "Seed": "seed",
}


def model_card(
    student: LoadedStudent,
    *,
    head: str | None,
    what: str,
    library: str,
    usage: str,
    notes: str,
    parity: Parity,
) -> str:
    """README.md in Markdown, with the front matter of model hubs.

    head: the teacher whose head is exported with the encoder.
    what, library, usage, notes: of the format.
    """
    student = replace(student, config=_without_folders(student.config))
    references = student.teachers or {short_name(text): text for text in student.config.get("teachers", ())}
    student = replace(student, teachers=_without_folders(references))
    # Recorded in the run, since plugins' teachers are known only while they are trained from.
    recorded = _recorded(student, "licences")
    licences = {name: recorded.get(name) or licence(reference) for name, reference in references.items()}
    start, origin = student.config.get("start"), _origin(student)
    bound_by = {**licences, f"the weights it started from, {start}": licence(start)} if start else licences
    first, named = statement(bound_by), dict(bound_by)
    if origin is not None:
        first += f" The weights were taken from {origin['file']}; their own licence is not recorded, and binds as well."
        named["the weights themselves"] = None
    sections = {
        "How to load it": f"{what}.\n\n```python\n{usage.strip()}\n```" + (f"\n\n{notes}" if notes else ""),
        "Teachers": _teachers(student, licences),
        "Data": _data(student),
        "Recipe": _recipe(student) if origin is None else table(["origin", ""], _rows(origin)),
        "Results": _results(student),
        "Parity": _parity(parity),
    }
    lines = [_front_matter(library, named), f"# {student.name}", first, _summary(student, head)]
    lines += [f"## {title}\n\n{text}" for title, text in sections.items()]
    return "\n\n".join(lines) + "\n"


def _without_folders(value: Any) -> Any:
    """A card is published: of a path on this machine it shows the last two names."""
    if isinstance(value, Mapping):
        return {key: _without_folders(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_without_folders(item) for item in value]
    path = re.fullmatch(r"([a-z]+:)?([/~].*)", value) if isinstance(value, str) else None
    return value if path is None else (path[1] or "") + "/".join(path[2].split("/")[-2:])


def _recorded(student: LoadedStudent, name: str) -> Mapping[str, Any]:
    """What the run has recorded for each teacher; empty where nothing is."""
    by_teacher = student.facts.get(name)
    return by_teacher if isinstance(by_teacher, Mapping) else {}


def _origin(student: LoadedStudent) -> Mapping[str, Any] | None:
    """Facts about weights that were not trained in a run of unic, as far as the record goes; None for a run's own."""
    imported = student.facts.get("imported")
    if isinstance(imported, Mapping):
        return {"file": _NOT_RECORDED, **imported}
    return None if student.config else {"file": student.source.name, **student.facts}


def _front_matter(library: str, licences: Mapping[str, str | None]) -> str:
    name = hub_name(licences)
    lines = [f"library_name: {library}", f"license: {name}"]
    if name == "other":
        found = ", ".join(sorted({text or "unknown" for text in licences.values()}))
        lines.append(f"license_name: {json.dumps(found)}")
    lines += [
        "pipeline_tag: image-feature-extraction",
        "tags:",
        "- unic",
        "- knowledge-distillation",
        "- vision",
    ]
    return "\n".join(["---", *lines, "---"])


def _summary(student: LoadedStudent, head: str | None) -> str:
    encoder = student.encoder
    model: Any = encoder.model
    millions = sum(parameter.numel() for parameter in model.parameters()) / 1e6
    registers = f", {model.num_reg_tokens} registers" if model.num_reg_tokens else ""
    vit = (
        f"A vision transformer of {millions:.3g} M parameters: {len(model.blocks)} blocks, width {encoder.dim}, "
        f"patches of {encoder.patch_size} px{registers}, images of {encoder.image_size} px"
    )
    architecture = f" (timm's {student.cfg.model})" if student.cfg.model else ""
    teachers = ", ".join(student.teachers)
    origin = f"It was distilled from {teachers}." if teachers else f"How it was trained is {_NOT_RECORDED}."
    features = (
        "It gives one vector an image (CLS) and one a patch."
        if head is None
        else f"Exported with the head that maps its features into the space of {head}."
    )
    return f"{vit}{architecture}. {origin} {features} Exported by unic {__version__}."


def _teachers(student: LoadedStudent, licences: Mapping[str, str | None]) -> str:
    if not licences:
        return f"Teachers: {_NOT_RECORDED}."
    hashes = _recorded(student, "teachers")
    rows = []
    for name, text in licences.items():
        sha256 = f"`{hashes[name]}`" if name in hashes else _NOT_RECORDED
        rows.append([name, f"`{student.teachers[name]}`", text or "unknown", sha256])
    return table(["teacher", "loaded as", "licence", "sha256 of weights and preprocessing"], rows)


def _data(student: LoadedStudent) -> str:
    roots = _field(student.config, "data.root")
    if isinstance(roots, list | tuple):
        roots = ", ".join(f"`{root}`" for root in roots) or _NOT_RECORDED
    elif roots != _NOT_RECORDED:
        roots = f"`{roots}`"
    return f"- Images: {student.facts.get('num_images', _NOT_RECORDED)}\n- Folders: {roots}"


def _recipe(student: LoadedStudent) -> str:
    rows = [[title, str(_field(student.config, path))] for title, path in _MAIN_FIELDS.items()]
    rows.append(["Steps done", str(student.facts.get("step", _NOT_RECORDED))])
    whole = json.dumps(student.config, indent=2)
    details = f"<details><summary>The whole recipe</summary>\n\n```json\n{whole}\n```\n\n</details>"
    return f"{table(['field', 'value'], rows)}\n\n{details}"


def _results(student: LoadedStudent) -> str:
    path = (student.source if student.source.is_dir() else student.source.parent) / "results.jsonl"
    results, _ = read_results(path) if student.config and path.is_file() else ([], [])
    rows = [
        [
            escape(result.model),
            escape(result.dataset),
            escape(f"{result.evaluation} {result.metric}".strip()),
            f"{result.value:.4g} {escape(result.unit)}",
            escape(result.protocol) or _NOT_RECORDED,
        ]
        for result in latest(result for result in results if math.isfinite(result.value))
    ]
    if not rows:
        return f"Results: {_NOT_RECORDED}."
    return table(["model", "data set", "measure", "value", "protocol"], rows)


def _parity(parity: Parity) -> str:
    rows = [
        [kind, f"{difference.max:.2e}", f"{difference.mean:.2e}"]
        for kind, difference in (("CLS", parity.cls), ("patches", parity.patches))
    ]
    text = (
        f"The features that {parity.library} {parity.version} computes from these files, compared in "
        f"{parity.precision} with those of unic's own encoder on {len(parity.images)} photographs "
        f"(tolerance {parity.tolerance:g}):"
    )
    return f"{text}\n\n{table(['absolute difference', 'largest', 'mean'], rows)}"


def _field(config: Mapping[str, Any], path: str) -> Any:
    value: Any = config
    for name in path.split("."):
        if not isinstance(value, Mapping) or name not in value:
            return _NOT_RECORDED
        value = value[name]
    return value


def _rows(facts: Mapping[str, Any]) -> list[list[str]]:
    """Numbers and texts; and that the recipe is not among them."""
    plain = {key: value for key, value in facts.items() if isinstance(value, str | int | float)}
    return [["recipe", _NOT_RECORDED], *([key, f"`{value}`"] for key, value in plain.items())]
