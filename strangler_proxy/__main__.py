"""The proxy alone: `python -m strangler_proxy --routes FILE --port P --admin-port A [--workers N] [--engine envoy]`."""

import argparse
import os
import sys
from pathlib import Path

from chassis.logs import configure
from chassis.problems import InvalidFileError
from strangler_proxy.server import PortTakenError, SettingError, run


def main() -> int:
    """Parse the options and serve. Exit codes: 0 stopped, 2 usage or a setting that cannot be used, 3 the
    file was refused, 5 a port is taken."""
    parser = argparse.ArgumentParser(prog="python -m strangler_proxy", description=__doc__)
    parser.add_argument("--routes", type=Path, required=True, metavar="FILE")
    parser.add_argument("--port", type=int, default=8000)
    parser.add_argument("--admin-port", type=int, default=8010)
    parser.add_argument("--workers", type=int, default=os.cpu_count() or 1)
    parser.add_argument("--host", default="127.0.0.1")
    parser.add_argument("--engine", choices=("python", "envoy"), default="python")
    options = parser.parse_args()
    configure("proxy")
    try:
        return run(
            routes=options.routes,
            port=options.port,
            admin_port=options.admin_port,
            workers=options.workers,
            host=options.host,
            engine=options.engine,
        )
    except InvalidFileError as error:
        sys.stderr.write(f"{error}\n")
        return 3
    except SettingError as error:
        sys.stderr.write(f"{error}\n")
        return 2
    except PortTakenError as error:
        sys.stderr.write(f"{error}\n")
        return 5


if __name__ == "__main__":
    sys.exit(main())
