"""Filter parameters, cleaned and refused as django-filter's form fields do.

Each `clean_…` takes the raw value (None when it was not sent) and returns what the field's `clean`
returns, or None for "not filtered". All raise FieldError with Django's sentence.

Sources: `django.forms.fields` (5.2) CharField, DecimalField, DateField; `ModelChoiceField` of
`django.forms.models`; `django_filters.filters.NumberFilter` (its upper bound of 1e50).
"""

from collections.abc import Callable, Mapping, Sequence
from datetime import date, datetime
from decimal import Decimal, InvalidOperation
from typing import Any

NULL_CHARACTERS = "Null characters are not allowed."
INVALID_CHOICE = "Select a valid choice. That choice is not one of the available choices."

_MOST = 1e50
# django.conf.locale.en_GB.formats, and the ISO format Django adds to every language's
BRITISH_DATES = ("%d/%m/%Y", "%d/%m/%y", "%Y-%m-%d")


class FieldError(Exception):
    """One value is refused; the message is Django's."""


def clean_text(raw: str | None) -> str | None:
    """`CharField`: surrounding blanks go; empty means not filtered."""
    text = (raw or "").strip()
    _refuse_null(text)
    return text or None


def clean_choice(raw: str | None, *, known: bool) -> str | None:
    """`ModelChoiceField`: `known` says whether an object with that value exists. Nothing is stripped."""
    if not raw:
        return None
    _refuse_null(raw)
    if not known:
        raise FieldError(INVALID_CHOICE)
    return raw


def clean_number(raw: str | None) -> Decimal | None:
    """`DecimalField` of a `NumberFilter`: any finite decimal up to 1e50, in any notation `Decimal` reads."""
    if not raw:
        return None
    try:
        number = Decimal(raw)
    except InvalidOperation as error:
        raise FieldError("Enter a number.") from error
    if not number.is_finite():
        raise FieldError("Enter a number.")
    if number > _MOST:
        raise FieldError(f"Ensure this value is less than or equal to {_MOST}.")
    return number


def clean_date(raw: str | None, formats: Sequence[str]) -> date | None:
    """`DateField`: the first of `formats` (as for strptime) that fits."""
    if not raw:
        return None
    for pattern in formats:
        try:
            return datetime.strptime(raw.strip(), pattern).date()  # noqa: DTZ007  (a day has no zone)
        except ValueError:
            continue
    raise FieldError("Enter a valid date.")


def clean_all(fields: Mapping[str, Callable[[], Any]]) -> tuple[dict[str, Any], dict[str, list[str]]]:
    """Run every cleaner; the values of those that passed, and the faults of the rest, both in order."""
    values: dict[str, Any] = {}
    faults: dict[str, list[str]] = {}
    for name, clean in fields.items():
        try:
            values[name] = clean()
        except FieldError as error:
            faults[name] = [str(error)]
    return values, faults


def _refuse_null(text: str) -> None:
    if "\x00" in text:
        raise FieldError(NULL_CHARACTERS)
