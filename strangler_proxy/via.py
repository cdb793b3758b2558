"""`Via` (RFC 9110 §7.6.3): what the proxy says of itself, and whether a request goes round in circles. Frozen values,
pure; `sections/via.py` makes them.

A request that names this proxy `ROUNDS` times has come back to it that often: a backend, or a route, points at the
proxy itself. A few rounds are let pass, because proxies of one name may rightly stand behind one another.
"""

import re
from dataclasses import dataclass, field

ROUNDS = 4


@dataclass(frozen=True, slots=True)
class Via:
    """The proxy's pseudonym, and to whom it is told."""

    name: bytes = b"strangler"
    requests: bool = True
    responses: bool = False
    line: bytes = field(init=False, compare=False)
    _own: re.Pattern[bytes] = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "line", b"Via: 1.1 %b\r\n" % self.name)
        own = rb"(?:^|,)[ \t]*(?:HTTP/)?1\.[01][ \t]+%b[ \t]*(?=$|[,(])" % re.escape(self.name)
        object.__setattr__(self, "_own", re.compile(own, re.IGNORECASE))

    def circles(self, told: bytes) -> bool:
        """Has a request with this Via (its lines joined by commas) come by too often?"""
        return len(self._own.findall(told)) >= ROUNDS
