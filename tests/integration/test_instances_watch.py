"""Lists that change and instances that fall ill: in the parent alone, and in a whole proxy."""

import asyncio
import json
import os
import signal
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest

from migration_plans.cli import main
from strangler_proxy.cluster.discover import NoListError
from strangler_proxy.cluster.several import Address, FromDns, HealthPolicy
from strangler_proxy.cluster.watch import Known, Watch, probed
from strangler_proxy.routes import parse_routes
from strangler_proxy.table import Backend as Place
from tests.integration.test_proxy_processes import Proxy, proxy
from tests.proxy_lab import Backend, Message, hang, raw, reply, routes_text, run, until, until_true

ILL = reply(status=b"503 Ill")


def text(place: str, catalog: int = 1, **changes: object) -> bytes:
    """Routes with `place` (YAML) instead of the catalogue's `url`."""
    whole = routes_text(1, catalog, **changes).decode()
    return whole.replace(f"    url: http://127.0.0.1:{catalog}\n", f"    {place}\n").encode()


@asynccontextmanager
async def servers(count: int) -> AsyncIterator[list[Backend]]:
    started = [Backend(reply(f"{number}".encode())) for number in range(count)]
    for server in started:
        await server.start()
    try:
        yield started
    finally:
        for server in started:
            await server.stop()


def urls(instances: list[Backend]) -> str:
    return "[" + ", ".join(f"http://127.0.0.1:{instance.port}" for instance in instances) + "]"


def test_dns_answers_are_followed_and_the_last_good_one_outlives_failures() -> None:
    one, two = Address("10.0.0.1", 81), Address("10.0.0.2", 81)
    answers: list[tuple[Address, ...] | None] = [(one,), None, None, (one, two)]
    asked = 0

    async def resolver(source: FromDns) -> tuple[Address, ...]:
        nonlocal asked
        assert (source.host, source.port) == ("catalog.test", 81)
        asked += 1
        answer = answers[min(asked, len(answers)) - 1]
        if answer is None:
            raise NoListError("catalog.test is not resolved", "check the name")
        return answer

    async def main_() -> None:
        told: list[Known] = []
        async with asyncio.TaskGroup() as tasks:
            watch = Watch(base=Path(), tell=told.append, tasks=tasks, resolver=resolver)
            watch.use(parse_routes(text('discover: {dns: "catalog.test:81", every: 100}'), "x"))
            await watch.settle(1)
            assert told[-1]["catalog"]["at"] == [one]
            faults: set[str] = set()

            def grown() -> bool:
                standing = watch.standing("catalog")
                assert standing is not None
                assert one in told[-1]["catalog"]["at"]
                faults.add(standing.fault)
                return told[-1]["catalog"]["at"] == [one, two]

            await until(grown)
            assert faults == {"", "catalog.test is not resolved (check the name)"}
            watch.close()

    run(main_())


def test_a_probe_says_what_is_wrong() -> None:
    async def main_() -> None:
        async with servers(1) as (server,):
            place = Place("catalog", "127.0.0.1", server.port)
            policy = HealthPolicy("/health?deep=1", timeout=0.2, host="shop.test")
            scripts = {
                "": reply(), "answers 503": ILL, "answers 302": reply(status=b"302 Found"), "timeout": hang,
                "reset": raw(b"", reset=True), "protocol": raw(b"220 smtp ready\r\n\r\n"),
            }  # fmt: skip
            for why, script in scripts.items():
                server.script = script
                assert (await probed(place, policy)).why == why
            assert {request.target for request in server.requests} == {b"/health?deep=1"}
            assert {request.get(b"host") for request in server.requests} == {b"shop.test"}
            server.script = reply(b"x" * 200_000)
            assert (await probed(place, policy)).why == ""
            await until(lambda: not server.open)
            await server.stop()
            assert (await probed(place, policy)).why == "refused"

    run(main_())


async def bodies(shop: Proxy, count: int) -> set[bytes]:
    answers: list[Message] = [await shop.ask("/api/x") for _ in range(count)]
    assert {answer.status for answer in answers} == {200}
    return {answer.body for answer in answers}


async def until_bodies(shop: Proxy, *wanted: bytes) -> None:
    async def only() -> bool:
        return await bodies(shop, 12) == set(wanted)

    await until_true(only)


def test_an_ill_instance_is_out_of_every_worker_and_comes_back(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    def say(*arguments: str, port: int) -> tuple[int, str]:
        with pytest.raises(SystemExit) as ended:
            main(["backends", *arguments, "--proxy-admin", f"http://127.0.0.1:{port}"])
        return int(ended.value.code or 0), capsys.readouterr().out

    async def main_() -> None:
        async with proxy(tmp_path) as shop, servers(2) as instances:
            health = "{path: /health, every: 50, timeout: 200, down_after: 2, up_after: 2}"
            place = f"instances: {urls(instances)}\n    health: {health}"

            whole = routes_text(shop.monolith.port, shop.catalog.port, fallback="false").decode()
            shop.routes.write_text(
                whole.replace(f"    url: http://127.0.0.1:{shop.catalog.port}\n", f"    {place}\n")
            )
            await until_bodies(shop, b"0", b"1")

            async def sick(
                request: Message, reader: asyncio.StreamReader, writer: asyncio.StreamWriter
            ) -> None:
                await (ILL if request.target == b"/health" else reply(b"1"))(request, reader, writer)

            instances[1].script = sick
            await until_bodies(shop, b"0")
            status = await shop.until_status(
                lambda now: now["backends"]["catalog"]["instances"][1]["health"] == "down"
            )
            found = status["backends"]["catalog"]
            assert found["breaker"] == "closed"
            assert [instance["up"] for instance in found["instances"]] == [True, False]
            assert found["instances"][1]["reason"] == "answers 503"
            port = shop.admin.base_url.port
            assert port is not None
            code, said = await asyncio.to_thread(say, "--check", port=port)
            assert code == 0
            assert "catalog: 1 of 2 instances up, breaker closed" in said
            assert "down (answers 503)" in said
            metrics = (await shop.admin.get("/metrics")).text
            assert (
                f'strangler_instance_up{{backend="catalog",instance="{found["instances"][1]["url"]}"}} 0.0'
                in metrics
            )

            # all down: rather a try than the certain failure
            instances[0].script = ILL

            async def panic() -> bool:
                return (await shop.ask("/api/x")).body == b"1"

            await until_true(panic)
            code, said = await asyncio.to_thread(say, "--check", "--json", "catalog", port=port)
            assert code == 4
            assert json.loads(said)["backends"].keys() == {"catalog"}

            instances[0].script, instances[1].script = reply(b"0"), reply(b"1")
            await until_bodies(shop, b"0", b"1")
            # a worker that begins knows from the start who is down
            instances[1].script = sick
            await until_bodies(shop, b"0")
            killed = {worker["pid"] for worker in (await shop.status())["workers"]}
            for pid in killed:
                os.kill(pid, signal.SIGKILL)
            await shop.until_status(
                lambda now: all(each["version"] and each["pid"] not in killed for each in now["workers"])
            )
            assert await bodies(shop, 12) == {b"0"}

    run(main_())


def test_a_list_in_a_file_is_followed_without_a_restart(tmp_path: Path) -> None:
    async def main_() -> None:
        async with proxy(tmp_path) as shop, servers(3) as instances:
            listed = tmp_path / "instances.json"
            listed.write_text(json.dumps([f"http://127.0.0.1:{instances[0].port}"]))
            whole = routes_text(shop.monolith.port, shop.catalog.port, fallback="false").decode()
            shop.routes.write_text(
                whole.replace(
                    f"    url: http://127.0.0.1:{shop.catalog.port}\n",
                    "    discover: {file: instances.json}\n",
                )
            )
            await until_bodies(shop, b"0")
            version = (await shop.status())["version"]
            listed.write_text(f"# two more\n{urls(instances)}\n")
            await until_bodies(shop, b"0", b"1", b"2")
            listed.write_text("[http://127.0.0.1:1")
            status = await shop.until_status(lambda now: now["backends"]["catalog"]["fault"])
            assert "instances.json:" in status["backends"]["catalog"]["fault"]
            assert await bodies(shop, 12) == {b"0", b"1", b"2"}
            listed.write_text(urls(instances[1:]))
            await until_bodies(shop, b"1", b"2")
            assert (await shop.status())["backends"]["catalog"]["fault"] is None
            assert (await shop.status())["version"] == version
            # a list that is missing when the routes name it is a fault of the routes, at its line
            shop.routes.write_text(shop.routes.read_text().replace("instances.json", "none.json"))
            status = await shop.until_status(lambda now: now["error"])
            (problem,) = status["error"]["problems"]
            assert (problem["line"], problem["field"]) == (5, "backends.catalog.discover")
            assert await bodies(shop, 6) == {b"1", b"2"}

    run(main_())


def test_names_are_resolved_and_one_that_is_not_falls_back(tmp_path: Path) -> None:
    async def main_() -> None:
        async with proxy(tmp_path) as shop, servers(1) as (server,):
            whole = routes_text(shop.monolith.port, shop.catalog.port).decode()
            url = f"    url: http://127.0.0.1:{shop.catalog.port}\n"
            shop.routes.write_text(
                whole.replace(url, '    discover: {dns: "nowhere.invalid:81", every: 100}\n')
            )
            await shop.until_status(lambda now: now["backends"]["catalog"].get("fault"))
            assert await bodies(shop, 4) == {b"monolith"}
            shop.routes.write_text(
                whole.replace(url, f'    discover: {{dns: "localhost:{server.port}", every: 100}}\n')
            )
            await until_bodies(shop, b"0")

    run(main_())


def test_an_edit_before_the_follower_has_begun_is_seen(tmp_path: Path) -> None:
    async def main() -> None:
        listed = tmp_path / "instances.yaml"
        listed.write_text("[http://10.0.0.1:81]")
        routes = parse_routes(text("discover: {file: instances.yaml}"), "lab")
        told: list[Known] = []
        async with asyncio.TaskGroup() as tasks:
            watch = Watch(base=tmp_path, tell=told.append, tasks=tasks)
            watch.use(routes)
            listed.write_text("[http://10.0.0.1:81, http://10.0.0.2:81]")
            await until(lambda: len(told[-1]["catalog"]["at"]) == 2)
            watch.close()

    run(main())
