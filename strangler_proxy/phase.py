"""Whom an exchange waits for, and for how long and how much at most."""

from typing import Final

BUFFER_LIMIT = (
    65_536  # request bytes held while no connection is there, and the largest body kept for a replay
)
BUSY_SECONDS = 1.0  # after which who was turned away for want of room may come again
ADMISSION_SECONDS = 10.0  # what duties have to let a request go on

# Whom the exchange waits for. Numbers, not members of an Enum: a request looks at them a dozen times, and compiled
# they are constants, where a member is looked up by name each time.
NEW: Final = 0
ADMISSION: Final = 1
CONNECTING: Final = 2
RUNNING: Final = 3
DONE: Final = 4
