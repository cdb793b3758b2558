"""A shopper's cookie jar: names and values for one host. Pure.

Only what one site and one client need of RFC 6265: every path and the whole host share the cookies; a cookie
with `Max-Age` of zero or less, or an `Expires` in 1970, is deleted.
"""

from collections.abc import Iterable
from dataclasses import dataclass, field


@dataclass(slots=True)
class Jar:
    """Cookies by name."""

    values: dict[str, str] = field(default_factory=dict)

    def take(self, set_cookies: Iterable[bytes]) -> None:
        """Obey the `Set-Cookie` headers of an answer."""
        for header in set_cookies:
            pair, *attributes = header.decode("latin-1").split(";")
            name, equals, value = pair.partition("=")
            if not equals or not name.strip():
                continue
            if any(_deletes(attribute) for attribute in attributes):
                self.values.pop(name.strip(), None)
            else:
                self.values[name.strip()] = value.strip()

    def header(self) -> str:
        """Value of the `Cookie` header, empty when the jar is."""
        return "; ".join(f"{name}={value}" for name, value in self.values.items())


def _deletes(attribute: str) -> bool:
    name, _, value = attribute.strip().partition("=")
    match name.lower():
        case "max-age":
            return value.strip().lstrip("-").isdigit() and int(value) <= 0
        case "expires":
            return " 1970 " in value.replace("-", " ")
        case _:
            return False
