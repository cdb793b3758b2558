"""From bytes of the log to changes. Pure: no socket, no clock."""
