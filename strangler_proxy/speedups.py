"""Which modules of the proxy are compiled, where there is a build (`chassis.speedups`): its data path.

python -m strangler_proxy.speedups [--check] [--quiet]
"""

import sys

from chassis.speedups import Compiled, main

# What runs for every request. The rest is imported by these as it is: frozen values that travel pickled
# (table, breaker) and what features are made of (duties).
MODULES = (
    "account", "answers", "buckets", "clients", "decide", "downstream", "exchange", "headers", "identity", "outcomes",
    "phase", "plane", "recognise", "replying", "request", "upstream",
)  # fmt: skip
PROXY = Compiled("strangler_proxy", MODULES, trial="strangler_proxy.worker")

if __name__ == "__main__":
    sys.exit(main(PROXY, sys.argv[1:]))
