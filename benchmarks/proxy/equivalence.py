"""Every contender shows that it does the same work before its speed counts for anything.

200 users ask through it, each twice. It must send them to both upstreams in about equal shares, a user always to the
same one, pass on the Host as received, name the client in X-Forwarded-For, and reuse its connections to the
upstream. What the upstream saw is in its answer.
"""

import json
from ipaddress import ip_address

from benchmarks.proxy.client import Connection, connections
from benchmarks.proxy.corpus import HOST, cookies
from benchmarks.proxy.processes import BenchmarkError

_USERS = 200
_LEAST_SHARE = 0.35  # more than four standard deviations of 200 fair coins from one half


def check(contender: str, port: int) -> None:
    """Raises BenchmarkError, naming every difference, when the contender does not do the work."""
    faults = []
    with connections(port, 4) as clients:
        first = [_ask(clients[user % 4], user) for user in range(_USERS)]
        second = [_ask(clients[-1 - user % 4], user) for user in range(_USERS)]
    share = sum(seen["server"] == "a" for seen in first) / _USERS
    if not _LEAST_SHARE <= share <= 1 - _LEAST_SHARE:
        faults.append(f"{share:.0%} of the users went to the first upstream, not about half")
    moved = sum(one["server"] != two["server"] for one, two in zip(first, second, strict=True))
    if moved:
        faults.append(f"{moved} of {_USERS} users were sent to the other side when they came again")
    if any(seen["host"] != HOST.decode() for seen in first):
        faults.append(f"Host was not passed on as received: {first[0]['host']}")
    if not all(_one_address(seen["forwarded_for"]) for seen in first):
        faults.append(f"X-Forwarded-For does not name the client: {first[0]['forwarded_for']!r}")
    if len({seen["connection"] for seen in second}) > _USERS / 10:
        faults.append("connections to the upstream are not kept alive")
    if faults:
        raise BenchmarkError(f"{contender} does not do the same work: {'; '.join(faults)}")


def _one_address(value: str) -> bool:
    """Any address: for a client on loopback, Envoy writes the one its own machine is known by."""
    try:
        ip_address(value)
    except ValueError:
        return False
    return True


def _ask(client: Connection, user: int) -> dict[str, str]:
    client.send(
        b"GET /api/g000/seen?user=%d HTTP/1.1\r\nHost: %b\r\nAccept: application/json\r\nCookie: %b\r\n\r\n"
        % (user, HOST, cookies(user))
    )
    seen: dict[str, str] = json.loads(client.answer())
    return seen
