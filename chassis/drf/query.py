"""The query string, read as `django.http.QueryDict` reads it."""

from collections.abc import Mapping
from dataclasses import dataclass
from urllib.parse import parse_qsl

_MAX_FIELDS = 1000  # Django's DATA_UPLOAD_MAX_NUMBER_FIELDS


class TooManyFieldsError(Exception):
    """More parameters than Django accepts; it answers with its HTML page for 400."""


@dataclass(frozen=True, slots=True)
class Query:
    """The parameters, each with all of its values in order."""

    values: Mapping[str, tuple[str, ...]]

    def get(self, name: str) -> str | None:
        """The last value of `name`, as `QueryDict.get` gives it; None when it was not sent."""
        values = self.values.get(name)
        return values[-1] if values else None


def parse_query(query_string: str) -> Query:
    """Read `query_string`. Blank values count; bytes that are not UTF-8 become U+FFFD.

    Raises TooManyFieldsError above 1,000 parameters.
    """
    try:
        pairs = parse_qsl(query_string, keep_blank_values=True, max_num_fields=_MAX_FIELDS)
    except ValueError as error:
        raise TooManyFieldsError(f"more than {_MAX_FIELDS} query parameters") from error
    values: dict[str, tuple[str, ...]] = {}
    for name, value in pairs:
        values[name] = (*values.get(name, ()), value)
    return Query(values)
