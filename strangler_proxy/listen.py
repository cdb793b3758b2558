"""What the proxy grants a client's connection: times, rates, numbers. Frozen values; `sections/listen.py` makes
them.
"""

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Listen:
    """For each worker and connection; seconds. `body_timeout` is the longest silence of a client that sends a body,
    or takes one; `tunnel_timeout` that of both ends of a tunnel. `upgrades` are the protocols (lower case) that
    clients may switch to."""

    header_timeout: float = 10.0
    body_timeout: float = 60.0
    idle_timeout: float = 75.0
    tunnel_timeout: float = 300.0
    upgrades: tuple[bytes, ...] = (b"websocket",)
