"""Is the fault gone? With no shopper sent to the service, somebody has to ask it: we do, directly and
politely.

One round is `GET /ready` and a GET of each path of the group that has no pattern in it. Any connection
failure, timeout or 5xx makes the round bad. Good answers to these few requests are no proof, only a reason
to try again: after a retry the rollback rule watches as before.
"""

from collections.abc import Sequence
from typing import Protocol

import httpx

_LARGEST_ROUND = 5


class Prober(Protocol):
    """Asks the service one round of questions."""

    def round(self) -> str:
        """ "" when every answer was good, else what was wrong."""
        ...


class HttpProber:
    """Asks the service at `url`."""

    def __init__(self, url: str, paths: Sequence[str], *, timeout: float = 2.0) -> None:
        plain = [path for path in paths if "*" not in path]
        self._url = url.rstrip("/")
        self._paths = ("/ready", *plain[:_LARGEST_ROUND])
        self._timeout = timeout

    def round(self) -> str:
        """ "" when every answer was good, else what was wrong."""
        with httpx.Client(
            base_url=self._url, timeout=self._timeout, headers={"User-Agent": "strangler-probe"}
        ) as client:
            for path in self._paths:
                try:
                    status = client.get(path).status_code
                except httpx.HTTPError as error:
                    return f"GET {self._url}{path}: {str(error) or type(error).__name__}"
                if status >= 500:
                    return f"GET {self._url}{path} answers {status}"
        return ""
