"""Where a worker process begins: choose how the data path runs, then run it.

    python -m strangler_proxy.start LINK_FD LISTEN_FD RATES_FD WRITES_FD

Compiled or not must be known before the first of its modules is imported (`speedups.py`), hence this file and
the import inside.
"""

import sys

from chassis.speedups import activate
from strangler_proxy.speedups import PROXY


def main() -> None:
    """Entry of the worker process."""
    # structlog takes in rich where it is installed, for colourful tracebacks on terminals: half of the time that a
    # worker takes to begin, and a worker writes JSON. A module that is None cannot be imported.
    sys.modules["rich"] = None  # type: ignore[assignment]
    compiled = activate(PROXY)
    from strangler_proxy import worker  # noqa: PLC0415  # imports the modules that were chosen just now

    link_fd, listen_fd, rates_fd, writes_fd = (int(argument) for argument in sys.argv[1:5])
    sys.exit(worker.run(link_fd, listen_fd, rates_fd, writes_fd, compiled=compiled))


if __name__ == "__main__":
    main()
