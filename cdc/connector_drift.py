"""What sets a connector's running configuration apart from the stream's, and what that does to its records. Pure.

    spoils    how a value is written, or which changes are left out: a record does not say so, and is read as something
              else or not missed (`time.precision.mode=microseconds`: a timestamp(3) a thousand times too large). What
              was written so waits in the topic among the rest, so putting the setting right repairs nothing
    else      the records are the same ones: the stream's configuration is registered again

Spoiling settings that the stream leaves to their defaults count too. The list of tables is none: it changes lawfully
with the mapping, and what was left out by a shorter one shows as rows that differ (`strangler cdc verify`).
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final

from cdc.seams import BEGIN_ANEW, StreamError

_SPOILING: Final = frozenset(
    {
        "decimal.handling.mode",
        "time.precision.mode",
        "binary.handling.mode",
        "interval.handling.mode",
        "hstore.handling.mode",
        "include.unknown.datatypes",
        "unavailable.value.placeholder",
        "money.fraction.digits",
        "converters",
        "skipped.operations",
    }
)
_SPOILING_PREFIXES: Final = ("column.", "event.processing.")


class SpoiledError(StreamError):
    """Records may have been written that are read as something else."""


@dataclass(frozen=True, slots=True)
class Drift:
    """Names of settings that differ, in order."""

    spoiling: tuple[str, ...] = ()
    harmless: tuple[str, ...] = ()


def drift(running: Mapping[str, str], ours: Mapping[str, str]) -> Drift:
    """What differs. Of the settings that only `running` has, those count that spoil records: what else somebody added
    (a log level, an overridden producer) stays.
    """
    spoiling, harmless = [], []
    for name in sorted(running.keys() | ours.keys()):
        if running.get(name) == ours.get(name):
            continue
        if name in _SPOILING or name.startswith(_SPOILING_PREFIXES):
            spoiling.append(name)
        elif name in ours:
            harmless.append(name)
    return Drift(tuple(spoiling), tuple(harmless))


def refuse_spoiled(running: Mapping[str, str], ours: Mapping[str, str], *, stream: str) -> None:
    """Raises SpoiledError when the connector writes, and may have written, records that are read as something else."""
    names = drift(running, ours).spoiling
    if names:
        raise SpoiledError(
            f"stream {stream}: its connector runs with {told(names, running, ours)}; a record does not tell with which "
            "setting it was written, so what came since that change may have been read wrongly, and what waits in the "
            f"topic would be. {BEGIN_ANEW.capitalize()}. If nothing was written since, `strangler cdc connector "
            "register` puts the setting right, and the stream goes on"
        )


def told(names: tuple[str, ...], running: Mapping[str, str], ours: Mapping[str, str]) -> str:
    """Those settings in words, without secrets."""
    return ", ".join(
        f"another {name}"
        if "password" in name
        else f"{name}={running.get(name, '(its default)')} instead of {ours.get(name, '(its default)')}"
        for name in names
    )
