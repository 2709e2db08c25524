"""How far a licence restricts what may be done with weights: a rough order, to name the strictest first."""

import re
from collections.abc import Mapping
from enum import IntEnum

# Identifiers that model hubs know, for the licences that come up.
_HUB_NAMES = {
    "apache-2.0", "mit", "bsd-2-clause", "bsd-3-clause", "isc", "cc0-1.0", "cc-by-4.0", "cc-by-sa-4.0",
    "cc-by-nc-4.0", "cc-by-nc-sa-4.0", "cc-by-nc-nd-4.0", "gpl-3.0", "lgpl-3.0", "agpl-3.0",
}  # fmt: skip


class Restriction(IntEnum):
    """What a licence asks for, from the least to the most."""

    PERMISSIVE = 0
    """Any use; at most a notice."""
    SHARE_ALIKE = 1
    """What is made from it must be shared under the same terms."""
    UNKNOWN = 2
    """Not recorded, or a text that only a reader can judge."""
    NON_COMMERCIAL = 3


def restriction(licence: str | None) -> Restriction:
    """Of a licence by its usual name. Where one text names several kinds, the strictest counts."""
    text = licence or ""
    if re.search(r"\bNC\b|non-?commercial|research[- ]only", text, re.IGNORECASE):
        return Restriction.NON_COMMERCIAL
    if re.search(r"\bND\b|no[- ]?deriv", text, re.IGNORECASE):
        return Restriction.UNKNOWN  # whether a student is derived from its teacher is not for us to say
    if re.search(r"\bSA\b|share-?alike|\b[AL]?GPL", text, re.IGNORECASE):
        return Restriction.SHARE_ALIKE
    if re.search(r"\b(Apache|MIT|BSD|ISC|CC0|CC[ -]BY)\b", text, re.IGNORECASE):
        return Restriction.PERMISSIVE
    return Restriction.UNKNOWN


def strictest(licences: Mapping[str, str | None]) -> list[str]:
    """The teachers whose licence restricts most, by licences of all teachers."""
    most = max(map(restriction, licences.values()), default=None)
    return [name for name, licence in licences.items() if restriction(licence) == most]


def statement(licences: Mapping[str, str | None]) -> str:
    """The first thing a reader of the model card must know."""
    if not licences:
        return "**Most restrictive teacher licence: not recorded**, as the teachers are not."
    names = strictest(licences)
    kind = restriction(licences[names[0]])
    groups: dict[str, list[str]] = {}
    for name in names:
        groups.setdefault(licences[name] or "unknown", []).append(name)
    named = "; ".join(f"{licence} ({', '.join(group)})" for licence, group in groups.items())
    consequences = {
        Restriction.PERMISSIVE: "",
        Restriction.SHARE_ALIKE: " Weights derived from share-alike teachers may have to be shared alike; check the "
        "licence.",
        Restriction.UNKNOWN: " Do not assume a permission that nobody has given; ask the authors of these teachers.",
        Restriction.NON_COMMERCIAL: " Weights derived from non-commercial teachers may not be used commercially; "
        "check the licence.",
    }
    text = f"**Most restrictive teacher licence: {named}.**{consequences[kind]}"
    unknown = [name for name in licences if restriction(licences[name]) == Restriction.UNKNOWN]
    if kind > Restriction.UNKNOWN and unknown:
        text += f" Licence unknown: {', '.join(unknown)}."
    return text


def hub_name(licences: Mapping[str, str | None]) -> str:
    """The strictest licence as model hubs name it; "unknown", or "other" for one they have no name for."""
    names = strictest(licences)
    if not names or restriction(licences[names[0]]) == Restriction.UNKNOWN:
        return "unknown"
    first, *others = {licences[name] for name in names}
    name = re.sub(r"[ _]+", "-", first or "").lower()
    return name if not others and name in _HUB_NAMES else "other"
