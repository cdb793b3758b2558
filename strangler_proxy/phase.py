"""Whom an exchange waits for, and for how long and how much at most."""

from enum import Enum

BUFFER_LIMIT = (
    65_536  # request bytes held while no connection is there, and the largest body kept for a replay
)
BUSY_SECONDS = 1.0  # after which who was turned away for want of room may come again
ADMISSION_SECONDS = 10.0  # what duties have to let a request go on


class Phase(Enum):
    """Whom the exchange waits for."""

    NEW = "new"
    ADMISSION = "admission"
    CONNECTING = "connecting"
    RUNNING = "running"
    DONE = "done"
