"""How answers look: aligned columns for people, JSON as received for scripts."""

import json
import sys
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

_ABSENT = "-"
_GIB = 1024**3
_CONTROLS = {code: f"\\x{code:02x}" for code in (*range(32), *range(127, 160)) if code != 9}


def show_json(value: Any) -> None:
    """Print a value as JSON."""
    for line in json.dumps(value, indent=2, ensure_ascii=False).split("\n"):
        print(for_output(line))


def show_table(columns: Sequence[str], rows: Iterable[Sequence[object]]) -> None:
    """Print rows under their columns' names, each column as wide as its longest cell."""
    cells = [list(columns), *([_cell(value) for value in row] for row in rows)]
    widths = [max(len(row[i]) for row in cells) for i in range(len(columns))]
    for row in cells:
        print(
            "  ".join(f"{text:{width}}" for text, width in zip(row, widths, strict=True)).rstrip()
        )


def show_fields(fields: Mapping[str, object]) -> None:
    """Print names and values, one a line; what is not known is left out."""
    known = {name: _cell(value) for name, value in fields.items() if value not in {None, ""}}
    width = max((len(name) for name in known), default=0)
    for name, text in known.items():
        print(f"{name + ':':{width + 1}} {text}")


def printable(text: str) -> str:
    """Return text that cannot steer a terminal, whoever wrote it."""
    return text.translate(_CONTROLS)


def for_output(text: str) -> str:
    """Return text as it is for a pipe or file, and harmless for a terminal."""
    return printable(text) if sys.stdout.isatty() else text


def gib(size: object) -> str:
    """Return a number of bytes in GiB."""
    return f"{size / _GIB:.1f} GiB" if isinstance(size, int | float) else _ABSENT


def duration(seconds: float) -> str:
    """Return how long that is, as precisely as one plans by it."""
    if seconds < 120:
        return f"{seconds:g} s"
    minutes = round(seconds / 60)
    return f"{minutes} min" if minutes < 120 else f"{minutes // 60} h {minutes % 60} min"


def percent(value: object) -> str:
    """Return a percentage, or that it is not known."""
    return f"{value:.0f} %" if isinstance(value, int | float) else _ABSENT


def _cell(value: object) -> str:
    if value is None or value in {"", ()}:
        return _ABSENT
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, float):
        return f"{value:g}"
    if isinstance(value, list | tuple):
        return ", ".join(_cell(item) for item in value)
    return printable(str(value))
