"""What the proxy grants a client's connection: times, rates, numbers. Frozen values; `sections/listen.py` makes
them.
"""

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Listen:
    """For each worker and connection; seconds. `connections` are those of clients at a time, None for as many as the
    machine allows; `min_body_rate` the bytes a second that a request's body has to come with, 0 for any;
    `body_timeout` the longest silence of a client that sends a body, or takes one; `tunnel_timeout` that of both ends
    of a tunnel. `upgrades` are the protocols (lower case) that clients may switch to."""

    connections: int | None = None
    min_body_rate: int = 0
    header_timeout: float = 10.0
    body_timeout: float = 60.0
    idle_timeout: float = 75.0
    tunnel_timeout: float = 300.0
    upgrades: tuple[bytes, ...] = (b"websocket",)
