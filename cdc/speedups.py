"""Compile the change stream's hot modules: `python -m cdc.speedups [--check] [--quiet]`."""

import sys

from cdc.compiled import STREAM
from chassis.speedups import main

if __name__ == "__main__":
    sys.exit(main(STREAM, sys.argv[1:]))
