"""How a caller behaves when what it calls is slow or broken.

Each module is a pure state machine: a frozen state and `now` (seconds on any monotonic clock) go in, a
decision and the next state come out. Nothing here reads a clock, sleeps or opens a socket; the caller does.
"""
