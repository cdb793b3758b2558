"""Comparing both sides on real sockets: who is asked what and when, and what comes of it."""

import asyncio
import json
from collections.abc import Callable
from typing import Any

from strangler_proxy.comparisons import Comparisons
from tests.proxy_lab import Lab, Message, Script, anonymous, hang, lab, raw, reply, run, until

JSON = b"Content-Type: application/json\r\n"


def said(document: object, *lines: bytes, status: bytes = b"200 OK") -> Script:
    """A script: a JSON answer."""
    return reply(json.dumps(document).encode(), status=status, headers=b"".join((JSON, *lines)))


def in_turn(*scripts: Script) -> Script:
    """A script that is another one for each request; the last one stays."""
    waiting = list(scripts)

    async def script(request: Message, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await (waiting.pop(0) if len(waiting) > 1 else waiting[0])(request, reader, writer)

    return script


def shadow(**options: object) -> str:
    """The section, as `group=` of the laboratory."""
    told = {"percent": 100, "patience": 20} | options
    return "shadow: " + json.dumps(told)


def sums(proxy: Lab, into: Comparisons) -> dict[str, Any]:
    assert proxy.plane.comparisons is not None
    wire = proxy.plane.comparisons.drain()
    if wire is not None:
        into.add(json.loads(json.dumps(wire)))
    found: dict[str, Any] = into.as_json(["catalog"])["catalog"]
    return found


async def compared(proxy: Lab, *paths: str, count: int | None = None) -> dict[str, Any]:
    """Ask for `paths`, one after the other; the sums when so many requests were judged or left out."""
    into = Comparisons()
    for number, path in enumerate(paths, start=1):
        await proxy.get(path)

        def settled(number: int = number) -> bool:
            found = sums(proxy, into)
            return sum(found["verdicts"].values()) + sum(found["dropped"].values()) >= number

        await until(settled)
        await until(lambda: rested(proxy))
    return sums(proxy, into)


def rested(proxy: Lab) -> bool:
    (duty,) = proxy.plane.duties["catalog"]
    return proxy.plane.loop.time() >= duty.rest_until  # type: ignore[attr-defined]  # the only duty is Shadowing


def verdicts(found: dict[str, Any]) -> dict[str, int]:
    return {name: count for name, count in found["verdicts"].items() if count}


def check(condition: Callable[[dict[str, Any], Lab], None], **settings: Any) -> None:
    """One request in the laboratory, and what is to be seen then."""

    async def main() -> None:
        path = settings.pop("path", "/api/x")
        async with lab(**({"percent": 0, "group": shadow()} | settings)) as proxy:
            condition(await compared(proxy, path), proxy)
            assert proxy.plane.comparisons is not None
            assert not +proxy.plane.comparisons.running

    run(main())


def test_a_control_user_is_compared_with_the_canary_and_nothing_of_it_shows() -> None:
    async def main() -> None:
        async with lab(monolith=said({"a": 1}), catalog=said({"a": 1}), percent=0, group=shadow()) as proxy:
            into = Comparisons()
            answer = await proxy.get(
                "/api/x?y=1", "Cookie: sessionid=s; k=v", "Accept-Language: fr", "X-Strangler-Shadow: 1"
            )
            assert json.loads(answer.body) == {"a": 1}
            await until(lambda: verdicts(sums(proxy, into)) == {"equal": 1})
            (own,), (copy,) = proxy.monolith.requests, proxy.catalog.requests
            assert own.get(b"x-strangler-shadow") == b""  # a client's marker is taken out
            assert own.get(b"x-strangler-position") == b"wanted"
            assert copy.get(b"x-strangler-shadow") == b"1"
            assert copy.get(b"x-strangler-position") == b""
            assert copy.start == own.start
            for name in (b"host", b"cookie", b"accept-language", b"x-request-id", b"x-forwarded-for"):
                assert copy.get(name) == own.get(name) != b"", name
            outcomes = proxy.drained()
            assert sum(item[1] for item in outcomes["catalog"]["items"] if item[0] == "control") <= 1
            assert "canary" not in json.dumps(outcomes["catalog"]["items"])

    run(main())


def test_a_canary_user_is_compared_with_the_control() -> None:
    def seen(found: dict[str, Any], proxy: Lab) -> None:
        assert verdicts(found) == {"equal": 1}
        (asked,) = proxy.monolith.requests
        assert asked.get(b"x-strangler-shadow") == b"1"
        assert asked.get(b"x-strangler-position") == b"wanted"
        assert proxy.catalog.requests[0].get(b"x-strangler-shadow") == b""

    check(seen, percent=100, monolith=said({"a": 1}), catalog=said({"a": 1}))


def test_a_difference_is_confirmed_by_asking_the_control_again_and_told_without_values() -> None:
    def seen(found: dict[str, Any], proxy: Lab) -> None:
        assert verdicts(found) == {"real": 1}
        assert [len(proxy.monolith.requests), len(proxy.catalog.requests)] == [2, 1]
        assert proxy.monolith.requests[1].get(b"x-strangler-shadow") == b"1"
        (example,) = found["examples"]
        assert (example["template"], example["path"], example["what"]) == ("/api/*", "$.name", "value")
        assert "secret" not in json.dumps(found)
        assert example["control"].startswith("string of 13 characters #")
        assert example["control"] != example["candidate"]

    check(seen, monolith=said({"name": "secret Alice!"}), catalog=said({"name": "secret Bobby!"}))


def test_values_are_shown_where_that_is_asked_for() -> None:
    def seen(found: dict[str, Any], proxy: Lab) -> None:
        (example,) = found["examples"]
        assert (example["control"], example["candidate"]) == ('"Alice"', '"Bob"')
        assert (example["place"], example["target"]) == ("$.name", "/api/x?user=7")

    check(
        seen, group=shadow(examples="full"), path="/api/x?user=7",
        monolith=said({"name": "Alice"}), catalog=said({"name": "Bob"}),
    )  # fmt: skip


def test_noise_is_no_fault() -> None:
    scripts = [said({"id": f"{number:032x}"}) for number in (1, 2)]
    check(
        lambda found, _: assert_verdict(found, "noise"),
        monolith=in_turn(*scripts), catalog=said({"id": "f" * 32}),
    )  # fmt: skip


def assert_verdict(found: dict[str, Any], *expected: str) -> None:
    assert verdicts(found) == dict.fromkeys(expected, 1)


def test_a_candidate_that_is_behind_is_asked_once_more() -> None:
    control = said({"price": 2}, b"X-Strangler-LSN: 0/200\r\n")
    behind = said({"price": 1}, b"X-Strangler-Applied: 0/1FF\r\n")
    there = said({"price": 2}, b"X-Strangler-Applied: 0/200\r\n")
    wrong = said({"price": 3}, b"X-Strangler-Applied: 1/0\r\n")

    def twice(found: dict[str, Any], proxy: Lab, verdict: str) -> None:
        assert_verdict(found, verdict)
        assert len(proxy.catalog.requests) == 2

    check(lambda found, proxy: twice(found, proxy, "equal"), monolith=control, catalog=in_turn(behind, there))
    check(lambda found, proxy: twice(found, proxy, "stale"), monolith=control, catalog=behind)
    check(lambda found, proxy: twice(found, proxy, "real"), monolith=control, catalog=in_turn(behind, wrong))
    check(
        lambda found, proxy: twice(found, proxy, "equal"),
        percent=100, monolith=control, catalog=in_turn(behind, there),
    )  # fmt: skip


def test_faults_of_the_other_side() -> None:
    good = said({"a": 1})
    cases: list[tuple[Script, Script, str, str]] = [
        (good, said({}, status=b"500 No"), "candidate_error", "status 500"),
        (good, hang, "candidate_error", "timeout"),
        (good, raw(b"nonsense\r\n\r\n", close=True), "candidate_error", "protocol"),
        (good, said({"a": 1}, b"X-Strangler-Side-Effect: 25006\r\n"), "candidate_error", "wrote in shadow"),
        (said({}, status=b"500 No"), good, "not_compared", "control: status 500"),
        (said({"a": "x" * 3000}), said({"a": "x" * 3000}), "not_compared", "too large"),
        (in_turn(good, hang), said({"a": 2}), "not_compared", "control asked again: timeout"),
    ]
    for monolith, catalog, verdict, reason in cases:

        def seen(found: dict[str, Any], _: Lab, verdict: str = verdict, reason: str = reason) -> None:
            assert_verdict(found, verdict)
            kind = "candidate_errors" if verdict == "candidate_error" else "not_compared"
            assert found[kind] == {reason: 1}

        check(seen, monolith=monolith, catalog=catalog, group=shadow(timeout=100, max_body=2000))


def test_what_says_nothing_is_not_compared() -> None:
    async def main() -> None:
        async with lab(
            monolith=said({}), catalog=said({}, status=b"500 No"), percent=100, group=shadow()
        ) as proxy:
            into = Comparisons()
            assert (await proxy.get("/api/x")).status == 200
            client = await proxy.connect()
            await client.send(b"POST /api/x HTTP/1.1\r\nHost: lab\r\nContent-Length: 0\r\n\r\n")
            assert (await client.response()).status == 200
            client.close()
            assert (await proxy.get("/api/x", method="OPTIONS")).status == 200
            await proxy.get("/elsewhere")
            assert sums(proxy, into)["not_compared"] == {"fallback": 1}
        async with lab(monolith=said({}), percent=0, group=shadow()) as proxy:
            into = Comparisons()
            await proxy.get("/api/x", 'If-None-Match: "x"')
            await proxy.get("/api/x", "Range: bytes=0-1")
            assert sums(proxy, into)["not_compared"] == {"conditional request": 2}
            assert not proxy.catalog.requests

    run(main())


def test_what_is_too_much_is_dropped_and_never_waits() -> None:
    async def main() -> None:
        async with lab(
            monolith=said({}), catalog=hang, percent=0, group=shadow(concurrency=2, timeout=10_000)
        ) as proxy:
            into = Comparisons()
            for _ in range(5):
                await proxy.get("/api/x")
            await until(lambda: len(proxy.catalog.requests) == 2)
            assert sums(proxy, into)["dropped"] == {"concurrency": 3}
            # What runs is counted on through a change of routes.
            proxy.use(percent=0, group=shadow(concurrency=2, timeout=10_000))
            await proxy.get("/api/x")
            assert sums(proxy, into)["dropped"] == {"concurrency": 4}

    run(main())


def test_no_more_than_the_percentage_is_drawn() -> None:
    async def main() -> None:
        async with lab(monolith=said({}), catalog=said({}), percent=0, group=shadow(percent=0.01)) as proxy:
            client = await proxy.connect()
            for number in range(200):
                await client.get("/api/x", anonymous(str(number)))
            client.close()
            assert len(proxy.catalog.requests) <= 3 + 2  # the first of each kind, and the draw
        async with lab(percent=0, group=shadow(percent=0)) as proxy:
            await proxy.get("/api/x")
            assert not proxy.plane.duties
            assert proxy.plane.comparisons is None

    run(main())


def test_rules_are_those_of_the_path() -> None:
    rules = {"/api/items/{id}/": {"lists": {"$.tags": "set"}}}
    settings = {
        "monolith": said({"tags": [1, 2]}), "catalog": said({"tags": [2, 1]}), "group": shadow(rules=rules)
    }  # fmt: skip
    check(
        lambda found, _: assert_verdict(found["templates"]["/api/items/{id}/"], "equal"),
        path="/api/items/4/",
        **settings,
    )
    check(
        lambda found, _: assert_verdict(found["templates"]["/api/*"], "real"), path="/api/items/", **settings
    )


def test_a_head_request_is_compared_by_its_head() -> None:
    async def main() -> None:
        async with lab(monolith=said({"a": 1}), catalog=said({"a": 2}), percent=0, group=shadow()) as proxy:
            into = Comparisons()
            await proxy.get("/api/x", method="HEAD")
            await until(lambda: verdicts(sums(proxy, into)) == {"equal": 1})

    run(main())
