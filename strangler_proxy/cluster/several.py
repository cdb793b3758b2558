"""Where a backend's instances come from, as the routes file says it.

Frozen values; `sections/instances.py` makes them.
"""

from dataclasses import dataclass
from typing import NamedTuple


class Address(NamedTuple):
    """Where an instance listens."""

    host: str
    port: int

    @property
    def url(self) -> str:
        """`http://host:port`, an IPv6 address in brackets."""
        host = f"[{self.host}]" if ":" in self.host else self.host
        return f"http://{host}:{self.port}"


@dataclass(frozen=True, slots=True)
class Several:
    """The instances of a backend."""

    addresses: tuple[Address, ...]
