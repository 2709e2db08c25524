"""HTML from Python values: everything is escaped unless it is markup already."""

import html
import json
import math
from collections.abc import Sequence
from typing import Any


class Html(str):
    """Markup: it goes into a page as it is."""

    __slots__ = ()


def tag(name: str, *children: str, **attributes: str | int | float | bool | None) -> Html:
    """An element.

    children: text, which is escaped, or Html.
    attributes: class_ is class, data_x is data-x; one that is None or False is left out.
    """
    words = [name]
    for key, value in attributes.items():
        key = key.rstrip("_").replace("_", "-")
        if value is True:
            words.append(key)
        elif value is not None and value is not False:
            words.append(f'{key}="{html.escape(str(value))}"')
    return Html(f"<{' '.join(words)}>{join(children)}</{name}>")


def join(parts: Sequence[str]) -> Html:
    return Html("".join(part if isinstance(part, Html) else html.escape(part, quote=False) for part in parts))


def script_json(value: Any) -> Html:
    """JSON for a <script> element: no name in it can end the element. NaN and infinities become null."""
    text = json.dumps(_finite(value), allow_nan=False, separators=(",", ":"))
    return Html(text.replace("<", "\\u003c").replace(">", "\\u003e").replace("&", "\\u0026"))


def _finite(value: Any) -> Any:
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if isinstance(value, dict):
        return {str(key): _finite(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_finite(item) for item in value]
    return value


def text_of(value: Any) -> str:
    """A value of a configuration or a measurement, for a cell; a dash for none."""
    if value is None or (isinstance(value, float) and not math.isfinite(value)):
        return "–"  # noqa: RUF001 (a dash)
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, float):
        return f"{value:.4g}" if abs(value) < 10_000 else f"{value:,.0f}"
    return value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)
