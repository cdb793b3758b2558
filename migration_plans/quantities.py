"""Durations, sizes and shares as a person writes them in a plan: `30s`, `16MB`, `5%`.

Each parser takes text (or a plain number in the base unit) and returns a number in the base unit: seconds,
bytes, a fraction of one. The `Annotated` types below let pydantic use the parsers and publish a pattern in
the JSON Schema, so that an editor complains before the toolkit does.
"""

import re
from decimal import Decimal
from typing import Annotated

from pydantic import BeforeValidator, WithJsonSchema

_SECONDS = {"ms": 0.001, "s": 1.0, "m": 60.0, "h": 3600.0, "d": 86400.0}
_BYTES = {
    "B": 1,
    "kB": 1000,
    "KB": 1000,
    "MB": 1000**2,
    "GB": 1000**3,
    "KiB": 1024,
    "MiB": 1024**2,
    "GiB": 1024**3,
}

_DURATION = r"^(\d+(?:\.\d+)?)\s*(ms|s|m|h|d)$"
_SIZE = r"^(\d+(?:\.\d+)?)\s*(B|kB|KB|MB|GB|KiB|MiB|GiB)$"
_SHARE = r"^(\d+(?:\.\d+)?)\s*%$"


def parse_duration(value: object) -> float:
    """Seconds in `30s`, `250ms`, `5m`, `2h`, `1d`, or in a plain number of seconds. Raises ValueError."""
    if isinstance(value, int | float) and not isinstance(value, bool) and value >= 0:
        return float(value)
    match = re.fullmatch(_DURATION, value.strip()) if isinstance(value, str) else None
    if match is None:
        raise ValueError("not a duration; write a number with ms, s, m, h or d, for example 30s")
    return float(match[1]) * _SECONDS[match[2]]


def parse_size(value: object) -> int:
    """Bytes in `16MB`, `512KiB`, or in a plain number of bytes. Raises ValueError."""
    if isinstance(value, int) and not isinstance(value, bool) and value >= 0:
        return value
    match = re.fullmatch(_SIZE, value.strip()) if isinstance(value, str) else None
    if match is None:
        raise ValueError("not a size; write a number with B, kB, MB, GB, KiB, MiB or GiB, for example 16MB")
    return round(float(match[1]) * _BYTES[match[2]])


def parse_share(value: object) -> float:
    """The fraction in `5%` (0.05) or in a plain number between 0 and 1. Raises ValueError."""
    if isinstance(value, int | float) and not isinstance(value, bool) and 0 <= value <= 1:
        return float(value)
    match = re.fullmatch(_SHARE, value.strip()) if isinstance(value, str) else None
    if match is None or float(match[1]) > 100:
        raise ValueError("not a share; write a percentage such as 5% or a fraction between 0 and 1")
    return float(Decimal(match[1]) / 100)


def format_seconds(seconds: float) -> str:
    """Seconds as a person reads them: `250 ms`, `4.2 s`, `3 min 20 s`, `2 h 5 min`."""
    if seconds < 1:
        return f"{seconds * 1000:.0f} ms"
    if seconds < 60:
        return f"{seconds:.3g} s"
    minutes, rest = divmod(round(seconds), 60)
    if minutes < 60:
        return f"{minutes} min {rest} s" if rest else f"{minutes} min"
    hours, minutes = divmod(minutes, 60)
    return f"{hours} h {minutes} min" if minutes else f"{hours} h"


def format_bytes(size: int) -> str:
    """Bytes as a person reads them: `812 B`, `16.4 kB`, `2.1 MB`."""
    amount = float(size)
    for unit in ("B", "kB", "MB"):
        if amount < 1000:
            return f"{amount:.0f} {unit}" if unit == "B" else f"{amount:.1f} {unit}"
        amount /= 1000
    return f"{amount:.1f} GB"


Duration = Annotated[
    float,
    BeforeValidator(parse_duration),
    WithJsonSchema(
        {
            "anyOf": [{"type": "string", "pattern": _DURATION}, {"type": "number", "minimum": 0}],
            "examples": ["30s"],
        }
    ),
]
Size = Annotated[
    int,
    BeforeValidator(parse_size),
    WithJsonSchema(
        {
            "anyOf": [{"type": "string", "pattern": _SIZE}, {"type": "integer", "minimum": 0}],
            "examples": ["16MB"],
        }
    ),
]
Share = Annotated[
    float,
    BeforeValidator(parse_share),
    WithJsonSchema(
        {
            "anyOf": [{"type": "string", "pattern": _SHARE}, {"type": "number", "minimum": 0, "maximum": 1}],
            "examples": ["5%"],
        }
    ),
]
