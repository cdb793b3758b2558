"""Are two scalars of JSON the same value, the same value in another notation, or something else? Pure.

Numbers are compared as decimals (parse them with `parse_float=Decimal, parse_int=Decimal`), so `0.1` is one
tenth and `1.0`, `1`, `"1.00"` and `1E+0` are one value in four notations. Texts that are date-times with an
offset are compared as instants; a date-time without one is a text, because nobody can say which moment it is.

`plausible` is the weaker question for places where the control differs from itself: is this value of the same
kind and order as what it says there?
"""

import re
from collections.abc import Sequence
from datetime import datetime, timedelta
from decimal import Context, Decimal
from enum import Enum
from urllib.parse import parse_qsl, urlsplit

from strangler_proxy.compare_rules import Kind

FLOAT_TOLERANCE = Decimal("1e-9")
_LONGEST_NUMBER = 64  # characters; longer ones are texts here, so that nobody chooses the cost
_NUMBER = re.compile(r"-?(?:0|[1-9]\d*)(?:\.\d+)?(?:[eE][+-]?\d{1,4})?", re.ASCII)
_INSTANT = re.compile(
    r"\d{4}-\d\d-\d\d[T ]\d\d:\d\d(?::\d\d(?:[.,]\d{1,9})?)?(Z|[+-]\d\d:?\d\d)", re.ASCII | re.IGNORECASE
)
_UUID = re.compile(r"[0-9a-f]{8}(?:-[0-9a-f]{4}){3}-[0-9a-f]{12}", re.IGNORECASE)
_WORD = re.compile(r"[0-9A-Za-z_+/=.-]+")
_CONTEXT = Context(prec=40, traps=[])  # no trap: 1e9999 - 1 is Infinity's business, not an exception's
_WIDER = {
    "a whole number": ("a word", "a text"),
    "a UUID": ("a word", "a text"),
    "a word": ("a text",),
}
_CLOCK_SLACK = timedelta(minutes=5)
_MAGNITUDES = 32  # how much larger than both of the control's a noisy number may be


class Alike(Enum):
    """How two values relate."""

    SAME = "same"
    NOTATION = "notation"  # the same value, written in another way
    OTHER = "other"


def alike(left: object, right: object, kind: Kind | None) -> Alike:
    """How two scalars (str, Decimal, bool, None) relate, given what their place is declared to hold."""
    if type(left) is type(right) and str(left) == str(right):
        return Alike.SAME
    if isinstance(left, bool | None) or isinstance(right, bool | None) or kind is Kind.TEXT:
        return Alike.OTHER
    one, other = _number(left), _number(right)
    if one is not None and other is not None:
        return _numbers(one, other, kind, texts=isinstance(left, str) and isinstance(right, str))
    if isinstance(left, str) and isinstance(right, str):
        return urls(left, right) if kind is Kind.URL else _instants(left, right, kind)
    return Alike.OTHER


def _instants(left: str, right: str, kind: Kind | None) -> Alike:
    moment = instant(left)
    if moment is None or moment != instant(right):
        return Alike.OTHER
    return Alike.SAME if kind is Kind.INSTANT else Alike.NOTATION


def _numbers(left: Decimal, right: Decimal, kind: Kind | None, *, texts: bool) -> Alike:
    if left == right:
        return Alike.SAME if kind is Kind.FLOAT else Alike.NOTATION
    if kind is Kind.MONEY or (texts and kind is not Kind.FLOAT):
        return Alike.OTHER
    whole = _is_whole(left) and _is_whole(right)
    if whole or not _close(left, right):
        return Alike.OTHER
    return Alike.SAME if kind is Kind.FLOAT else Alike.NOTATION


def _close(left: Decimal, right: Decimal) -> bool:
    gap = _CONTEXT.abs(_CONTEXT.subtract(left, right))
    return bool(gap <= _CONTEXT.multiply(FLOAT_TOLERANCE, max(abs(left), abs(right))))


def _is_whole(number: Decimal) -> bool:
    exponent = number.as_tuple().exponent
    return isinstance(exponent, int) and exponent >= 0


def _number(value: object) -> Decimal | None:
    if isinstance(value, Decimal):
        return value
    if isinstance(value, str) and len(value) <= _LONGEST_NUMBER and _NUMBER.fullmatch(value):
        return Decimal(value)
    return None


def instant(text: str) -> datetime | None:
    """The moment that a date-time with an offset (RFC 3339) names, or None."""
    if len(text) > 40 or not _INSTANT.fullmatch(text):
        return None
    try:
        return datetime.fromisoformat(text.upper())
    except ValueError:  # 2026-13-45T…: a text that only looks like one
        return None


def urls(left: str, right: str) -> Alike:
    """Two URLs without their scheme and host: behind a proxy those tell who was asked, not what was said."""
    try:
        one, other = urlsplit(left), urlsplit(right)
    except ValueError:
        return Alike.OTHER
    if bool(one.netloc) is not bool(other.netloc):
        return Alike.OTHER
    if (one.path, one.query, one.fragment) == (other.path, other.query, other.fragment):
        return Alike.SAME
    if (one.path, one.fragment) == (other.path, other.fragment) and _query(one.query) == _query(other.query):
        return Alike.NOTATION
    return Alike.OTHER


def _query(text: str) -> list[tuple[str, str]]:
    return sorted(parse_qsl(text, keep_blank_values=True))


def canonical(value: object, kind: Kind | None) -> str:
    """A text that two scalars share when they are the same value in whatever notation (floats aside)."""
    if value is None or isinstance(value, bool):
        return repr(value)
    if isinstance(value, str) and kind in (Kind.TEXT, Kind.URL):
        return f"s{value}" if kind is Kind.TEXT else _canonical_url(value)
    number = _number(value)
    if number is not None:
        return _canonical_number(number)
    moment = instant(value) if isinstance(value, str) else None
    return f"t{moment.timestamp()}" if moment is not None else f"s{value}"


def _canonical_number(number: Decimal) -> str:
    if not number:
        return "n0"
    sign, digits, exponent = number.as_tuple()
    assert isinstance(exponent, int)  # JSON has no NaN
    written = "".join(map(str, digits)).lstrip("0")
    kept = written.rstrip("0")
    return f"n{'-' if sign else ''}{kept}e{exponent + len(written) - len(kept)}"


def _canonical_url(text: str) -> str:
    try:
        parts = urlsplit(text)
    except ValueError:
        return f"s{text}"
    return f"u{parts.path}?{_query(parts.query)}#{parts.fragment}"


def plausible(value: object, peers: Sequence[object]) -> str:
    """Why `value` is unlikely where the control says `peers`; empty when it may well be another one of them."""
    if type_name(value) not in map(type_name, peers):
        return f"{type_name(value)} where the control says {type_name(peers[0])}"
    alike_peers = [peer for peer in peers if type_name(peer) == type_name(value)]
    if isinstance(value, Decimal):
        return _plausible_number(value, [peer for peer in alike_peers if isinstance(peer, Decimal)])
    if isinstance(value, str):
        return _plausible_text(value, [peer for peer in alike_peers if isinstance(peer, str)])
    return ""


def _plausible_number(value: Decimal, peers: list[Decimal]) -> str:
    if all(map(_is_whole, peers)) and not _is_whole(value):
        return "a fraction where the control says whole numbers"
    if all(peer > 0 for peer in peers) and value < 0:
        return "negative where the control says positive numbers"
    if abs(value) > _CONTEXT.multiply(Decimal(_MAGNITUDES), max([Decimal(1), *map(abs, peers)])):
        return f"more than {_MAGNITUDES} times what the control says"
    return ""


def _plausible_text(value: str, peers: list[str]) -> str:
    moments = [moment for moment in map(instant, peers) if moment is not None]
    if len(moments) == len(peers):
        return _plausible_instant(value, peers, moments)
    # A random word may happen to hold digits only, a random text to be one word: the narrower kind will do.
    kinds = {form(value), *_WIDER.get(form(value), ())}
    if kinds.isdisjoint(form(peer) for peer in peers):
        return f"{form(value)} where the control says {form(peers[0])}"
    return ""


def _plausible_instant(value: str, peers: list[str], moments: list[datetime]) -> str:
    moment = instant(value)
    if moment is None:
        return "no date-time with an offset where the control says one"
    if _offset(value) not in map(_offset, peers):
        return "a date-time in another offset or notation"
    slack = max(_CLOCK_SLACK, 10 * (max(moments) - min(moments)))
    if not min(moments) - slack <= moment <= max(moments) + slack:
        return "a moment far from the control's"
    return ""


def _offset(text: str) -> str:
    found = _INSTANT.fullmatch(text)
    assert found is not None  # the caller knows that it is one
    return f"{text[10]}{found[1]}"


def form(text: str) -> str:
    """What kind of text this is, said so that random values of one kind get the same answer."""
    if not text:
        return "an empty text"
    if instant(text) is not None:
        return "a date-time"
    if len(text) <= _LONGEST_NUMBER and _NUMBER.fullmatch(text):
        _, point, fraction = text.partition(".")
        return f"a number with {len(fraction)} decimals" if point else "a whole number"
    if _UUID.fullmatch(text):
        return "a UUID"
    if text.startswith(("http://", "https://", "/")):
        return "a URL"
    return "a word" if _WORD.fullmatch(text) else "a text"


def type_name(value: object) -> str:
    """JSON's word for what `value` is."""
    match value:
        case None:
            return "null"
        case bool():
            return "boolean"
        case Decimal():
            return "number"
        case str():
            return "string"
        case list():
            return "list"
        case _:
            return "object"
