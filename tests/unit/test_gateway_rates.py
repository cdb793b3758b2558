"""Rate limits: who is counted as one client, and the table that workers share."""

import os
from collections.abc import Iterator
from contextlib import contextmanager

import pytest

from chassis.problems import InvalidFileError
from chassis.resilience.limiter import Rate
from strangler_proxy.gateway import rate_table
from strangler_proxy.gateway.rate_table import RateTable, make_table
from strangler_proxy.gateway.rates import Counted, Facts, RateLimit, client_key, limit_lines, slot_key
from strangler_proxy.routes import parse_routes
from tests.proxy_lab import routes_text

SECOND = Rate(per_second=1.0, burst=2)


@contextmanager
def table() -> Iterator[RateTable]:
    descriptor = make_table()
    made = RateTable(descriptor)
    try:
        yield made
    finally:
        made.close()
        os.close(descriptor)


def limit(counted: Counted, *, scope: str = "g", place: int = 0, header: bytes = b"") -> RateLimit:
    return RateLimit(scope, place, counted, SECOND, header)


@pytest.mark.parametrize(
    ("one", "other", "same"),
    [
        (b"2001:db8::1", b"2001:db8::ffff:2", True),  # one /64
        (b"2001:db8::1", b"2001:db8:0:1::1", False),
        (b"::ffff:192.0.2.1", b"192.0.2.1", True),
        (b"192.0.2.1", b"192.0.2.2", False),
        (b"unknown", b"unknown", True),
    ],
)
def test_addresses_of_one_client(one: bytes, other: bytes, *, same: bool) -> None:
    keys = {client_key(limit(Counted.IP), Facts(address)) for address in (one, other)}
    assert (len(keys) == 1) is same


def test_who_is_not_known_is_counted_by_address_and_never_with_the_known() -> None:
    stranger = Facts(b"192.0.2.1")
    for counted in (Counted.USER, Counted.SUBJECT, Counted.HEADER):
        assert client_key(limit(counted), stranger) == b"ip:192.0.2.1"
    liar = Facts(b"ip:192.0.2.1", header=b"ip:192.0.2.1", user=b"7", subject=b"7")
    keys = {client_key(limit(counted), liar) for counted in (Counted.USER, Counted.SUBJECT, Counted.HEADER)}
    assert len(keys) == 3
    assert b"ip:192.0.2.1" not in keys


def test_limits_do_not_share_state() -> None:
    limits = [
        limit(Counted.IP),
        limit(Counted.IP, place=1),
        limit(Counted.IP, scope=""),
        limit(Counted.IP, scope="h"),
    ]
    assert len({slot_key(each, b"ip:1", secret=b"s" * 32) for each in limits}) == 4
    assert slot_key(limits[0], b"ip:1", secret=b"s" * 32) != slot_key(limits[0], b"ip:1", secret=b"t" * 32)


def test_two_views_of_one_table_see_one_state() -> None:
    descriptor = make_table()
    copy = os.dup(descriptor)
    one, other = RateTable(descriptor), RateTable(copy)
    assert [t.allowed for t in one.take_all([(5, SECOND)], 100.0)] == [True]
    assert [t.allowed for t in other.take_all([(5, SECOND)], 100.0)] == [True]
    (refused,) = one.take_all([(5, SECOND)], 100.0)
    assert not refused.allowed
    assert refused.retry_after == pytest.approx(1.0)
    assert other.take_all([(5, SECOND)], 101.0)[0].allowed
    for view in (one, other):
        view.close()
        os.close(view.descriptor)


def test_a_request_refused_by_one_limit_takes_from_none() -> None:
    with table() as shared:
        narrow, wide = (1, Rate(1.0, 1)), (2, Rate(1.0, 2))
        assert all(t.allowed for t in shared.take_all([narrow, wide], 10.0))
        for _ in range(5):
            assert [t.allowed for t in shared.take_all([narrow, wide], 10.0)] == [False, True]
        assert shared.take_all([wide], 10.0)[0].allowed
        assert not shared.take_all([wide], 10.0)[0].allowed


def test_two_new_clients_of_one_set_get_two_places() -> None:
    with table() as shared:
        sets = rate_table.ENTRIES // 8
        keys = [(7 + sets * n, Rate(1.0, 1)) for n in range(3)]
        assert all(t.allowed for t in shared.take_all(keys, 10.0))
        assert not any(t.allowed for t in shared.take_all(keys, 10.0))


def test_a_full_set_forgets_who_is_idle_first_and_counts_the_others() -> None:
    with table() as shared:
        sets = rate_table.ENTRIES // 8
        keys = [7 + sets * n for n in range(10)]
        for number, key in enumerate(keys[:8]):
            assert shared.take_all([(key, Rate(1.0 / (number + 1), 1))], 10.0)[0].allowed
        assert shared.take_all([(keys[8], Rate(0.01, 1))], 11.5)[0].allowed  # keys[0] is idle since 11
        assert shared.crowded == 0
        assert not shared.take_all([(keys[1], Rate(0.5, 1))], 11.5)[0].allowed
        assert shared.take_all([(keys[9], Rate(0.01, 1))], 11.5)[0].allowed  # keys[1], idle at 12, must go
        assert shared.crowded == 1


def test_a_worker_that_stopped_with_the_lock_stops_nobody() -> None:
    """A record lock belongs to a process, so the holder must be another one."""
    descriptor = make_table()
    ready, go = os.pipe(), os.pipe()
    child = os.fork()
    if child == 0:
        import fcntl

        fcntl.lockf(descriptor, fcntl.LOCK_EX, 0, 0)
        os.write(ready[1], b"x")
        os.read(go[0], 1)
        os._exit(0)
    try:
        os.read(ready[0], 1)
        waited: list[None] = []
        shared = RateTable(descriptor, yield_processor=lambda: waited.append(None))
        assert shared.take_all([(5, SECOND)], 1.0)[0].allowed
        assert shared.unlocked == 1
        assert waited
    finally:
        os.write(go[1], b"x")
        os.waitpid(child, 0)
    assert shared.take_all([(5, SECOND)], 1.0)[0].allowed
    assert shared.unlocked == 1  # the dead give back what they held
    shared.close()
    for each in (descriptor, *ready, *go):
        os.close(each)


def test_who_was_stopped_before_writing_undoes_nothing() -> None:
    descriptor = make_table()
    shared, late = RateTable(descriptor), RateTable(os.dup(descriptor))
    assert shared.take_all([(5, SECOND)], 1.0)[0].allowed
    place = late._find(5, set())
    old = late._dues[place + 1]
    for _ in range(3):
        shared.take_all([(5, SECOND)], 1.0)
    after = shared._dues[place + 1]
    late._write(place, 5, old + 0.001, 1.0)  # read before the three, without the lock
    assert shared._dues[place + 1] == after > old
    shared.close()
    late.close()
    os.close(late.descriptor)
    os.close(descriptor)


def test_processes_at_the_same_moment_never_admit_more_than_the_limit() -> None:
    """Four processes take from one client's state as fast as they can; the sum is exact."""
    descriptor = make_table()
    rate = Rate(per_second=1e-6, burst=500)
    results, start = os.pipe(), os.pipe()
    children = []
    for _ in range(4):
        child = os.fork()
        if child == 0:
            shared = RateTable(descriptor)
            os.read(start[0], 1)
            # an update lost to one of the two keys lets that one allow what the other refuses
            admitted = sum(
                all(taken.allowed for taken in shared.take_all([(5, rate), (6, rate)], 1.0))
                for _ in range(400)
            )
            os.write(results[1], b"%d %d\n" % (admitted, shared.unlocked))
            os._exit(0)
        children.append(child)
    os.write(start[1], b"go!!")
    statuses = [os.waitpid(child, 0)[1] for child in children]
    assert statuses == [0] * 4
    told = [tuple(map(int, line.split())) for line in os.read(results[0], 1000).splitlines()]
    admitted, unlocked = (sum(column) for column in zip(*told, strict=True))
    assert 500 <= admitted <= 500 + unlocked
    os.close(descriptor)
    for each in (*results, *start):
        os.close(each)


def test_what_a_refused_client_is_told() -> None:
    lines = limit_lines(RateLimit("", 0, Counted.IP, Rate(10.0, 25)), 0.04)
    assert lines == (b'RateLimit-Policy: "site-ip";q=25;w=3\r\n', b'RateLimit: "site-ip";r=0;t=1\r\n')


@pytest.mark.parametrize(
    ("item", "words"),
    [
        ("{by: nobody, requests: 1}", "by is one of"),
        ("{by: 'header:', requests: 1}", "header:NAME"),
        ("{by: ip, requests: 0}", "greater than or equal to 1"),
        ("{by: ip, requests: 1, per: day}", "'second', 'minute' or 'hour'"),
        ("{by: ip}", "requests"),
    ],
)
def test_a_faulty_limit_is_refused_with_its_place(item: str, words: str) -> None:
    with pytest.raises(InvalidFileError) as raised:
        parse_routes(routes_text(1, 2, group=f"rate_limit: [{item}]"), "routes.yaml")
    (problem,) = raised.value.problems
    assert problem.line
    assert words in f"{problem.field} {problem.message}"
