"""How many files a worker may have open: every connection is one, and the usual limit is 1,024.

The limit has two parts (getrlimit(2)): the soft one holds, and a process may raise it up to the hard one. The low
soft limit is there for programs that use select(2), which the proxy does not, so the parent raises it at the start
for itself and the workers, which inherit it. Beyond the hard limit only an administrator can help.
"""

import resource

import structlog

from strangler_proxy.table import Routes

CLIENTS = 10_000  # idle client connections that one worker is meant to hold
_OWN = 64  # what a worker needs besides: listening sockets, the link, tables, libraries


def wanted(routes: Routes) -> int:
    """Files that a worker has open when every backend has all the connections that `routes` allow it, and
    CLIENTS clients are there. Instances found later than the file was written are not known here: one is counted.
    """
    upstream = sum(
        backend.limits.connections * max(1, len(backend.several.addresses) if backend.several else 1)
        for backend in routes.backends.values()
    )
    return CLIENTS + upstream + _OWN


def allow(routes: Routes) -> int:
    """Raise this process's limit as far as it goes, and say so when that is less than `wanted`; the limit."""
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    needed = wanted(routes)
    if hard != resource.RLIM_INFINITY and hard < needed:
        structlog.get_logger().warning(
            "few open files allowed: connections beyond them wait or are refused",
            limit=hard,
            wanted=needed,
            remedy=f"raise the hard limit (ulimit -Hn {needed}, or LimitNOFILE= of its systemd unit)",
        )
    return hard
