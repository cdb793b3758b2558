"""Protected groups on a real proxy: tokens, sessions, keys that rotate."""

import asyncio
import json
import os
import signal
from base64 import urlsafe_b64encode
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import jwt
import pytest
from cryptography.hazmat.primitives.asymmetric import rsa

from strangler_proxy.identity import USER_COOKIE, CookieSigner
from tests.integration.test_proxy_processes import proxy
from tests.proxy_lab import SECRET, Lab, Message, Script, hang, lab, reply, run, until, until_true
from tests.unit.test_gateway_tokens import jwk

KEY = rsa.generate_private_key(65537, 2048)
OTHER_KEY = rsa.generate_private_key(65537, 2048)
FAR = 4_000_000_000
ISSUERS = "issuers: {shop: {issuer: i, audience: a, algorithms: [RS256], keys: {pem: /unused}}}"


def bearer(key: Any = KEY, kid: str | None = None, **claims: Any) -> str:
    said = {"iss": "i", "aud": "a", "sub": "42", "exp": FAR} | claims
    return f"Authorization: Bearer {jwt.encode(said, key, 'RS256', headers={'kid': kid} if kid else None)}"


@asynccontextmanager
async def guarded(auth: str, *, keys: bool = True, **changes: Any) -> AsyncIterator[Lab]:
    async with lab(group=f"auth: {auth}", more=ISSUERS, **changes) as it:
        if keys:
            it.plane.gateway.keys_came("shop", [jwk("RS256", KEY)])
        yield it


def test_only_a_good_and_sufficient_token_passes_and_refusals_are_no_evidence() -> None:
    async def main() -> None:
        async with guarded("{jwt: {issuer: shop, scopes: [orders:read]}}") as it:
            none = await it.get("/api/x")
            assert (none.status, none.get(b"www-authenticate")) == (401, b'Bearer realm="gateway"')
            bad = await it.get("/api/x", bearer(OTHER_KEY))
            assert bad.status == 401
            assert b'error="invalid_token"' in bad.get(b"www-authenticate")
            poor = await it.get("/api/x", bearer(scope="orders:write"))
            assert poor.status == 403
            assert b'error="insufficient_scope"' in poor.get(b"www-authenticate")
            assert b'scope="orders:read"' in poor.get(b"www-authenticate")
            twice = await it.get("/api/x", bearer(scope="orders:read"), bearer(scope="orders:read"))
            assert twice.status == 400
            assert not it.catalog.requests
            good = await it.get(
                "/api/x",
                bearer(scope="orders:read", sub="ä 7"),
                "X-Strangler-Subject: 1",
                "X-Strangler-Issuer: x",
            )
            assert good.status == 200
            (request,) = it.catalog.requests
            assert request.get(b"x-strangler-subject") == b"%C3%A4%207"
            assert request.get(b"x-strangler-issuer") == b"shop"
            wire = it.drained()
            assert wire["catalog"]["canary"]["refused"] == {"auth": 4}
            assert wire["catalog"]["items"] == [["canary", 1, 100]]

    run(main())


def test_requests_wait_for_keys_that_are_not_here_yet() -> None:
    async def main() -> None:
        async with guarded("{jwt: {issuer: shop}}", keys=False) as it:
            going = [asyncio.ensure_future(it.get("/api/x", bearer(kid="k"))) for _ in range(3)]
            await until(lambda: len(it.plane.active) == 3)
            it.plane.gateway.keys_came("shop", [jwk("RS256", KEY, kid="k")])
            assert [answer.status for answer in await asyncio.gather(*going)] == [200, 200, 200]
            unknown = asyncio.ensure_future(it.get("/api/x", bearer(kid="of another")))
            await until(lambda: len(it.plane.active) == 1)
            it.plane.gateway.keys_came("shop", [jwk("RS256", KEY, kid="k")])
            assert (await unknown).status == 401
        async with guarded("{jwt: {issuer: shop}}", keys=False) as it:
            going = [asyncio.ensure_future(it.get("/api/x", bearer()))]
            await until(lambda: len(it.plane.active) == 1)
            it.plane.gateway.keys_came("shop", None)  # the parent could get none
            assert (await going[0]).status == 503

    run(main())


def test_a_tokens_subject_decides_the_side_and_only_a_verified_one() -> None:
    async def main() -> None:
        auth = "{jwt: {issuer: shop, optional: true}}"
        async with guarded(auth, sticky="jwt", percent=50) as it:
            sides: dict[str, set[bytes]] = {}
            for _ in range(3):
                for subject in map(str, range(12)):
                    body = (await it.get("/api/x", bearer(sub=subject))).body
                    sides.setdefault(subject, set()).add(body)
            assert all(len(seen) == 1 for seen in sides.values())
            assert set().union(*sides.values()) == {b"monolith", b"catalog"}
            anonymous = await it.get("/api/x")
            assert anonymous.status == 200
            assert b"strangler_id=" in anonymous.get(b"set-cookie")
            assert not (await it.get("/api/x", bearer())).all(b"set-cookie")
            assert (await it.get("/api/x", bearer(OTHER_KEY))).status == 401

    run(main())


def test_limits_by_subject_count_each_verified_subject() -> None:
    async def main() -> None:
        group = "rate_limit: [{by: subject, requests: 1, per: hour}]\n    auth: {jwt: {issuer: shop}}"
        async with lab(group=group, more=ISSUERS) as it:
            it.plane.gateway.keys_came("shop", [jwk("RS256", KEY)])
            answers = [(await it.get("/api/x", bearer(sub=sub))).status for sub in ("1", "2", "1")]
            assert answers == [200, 200, 429]

    run(main())


def monolith_with_sessions(asked: list[Message]) -> Script:
    """`/session` says whether the cookie `sessionid=good` came; everything else is an ordinary answer."""

    async def script(request: Message, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        answer = reply(b"monolith")
        if request.target == b"/session":
            asked.append(request)
            if b"sessionid=good" in request.get(b"cookie"):
                answer = reply(b"", status=b"200 OK", headers=b"X-Strangler-User: 7\r\n")
            else:
                answer = reply(b"log in", status=b"302 Found", headers=b"Location: /login\r\n")
        await answer(request, reader, writer)

    return script


def test_a_session_is_asked_about_once_and_remembered() -> None:
    async def main() -> None:
        asked: list[Message] = []
        auth = "{session: {check: /session, every: 60000}}"
        async with guarded(auth, monolith=monolith_with_sessions(asked)) as it:
            good = [it.get("/api/x", "Cookie: sessionid=good") for _ in range(5)]
            assert [answer.status for answer in await asyncio.gather(*good)] == [200] * 5
            assert len(asked) == 1
            assert asked[0].get(b"x-forwarded-for") == b"127.0.0.1"
            assert asked[0].get(b"x-request-id")
            assert {r.get(b"x-strangler-subject") for r in it.catalog.requests} == {b"7"}
            it.use(group=f"auth: {auth}", more=ISSUERS, percent=50)  # somebody edits a percentage
            assert (await it.get("/api/x", "Cookie: sessionid=good")).status == 200
            assert len(asked) == 1
            for _ in range(2):  # a bad session is asked about again: it may log in at any moment
                assert (await it.get("/api/x", "Cookie: sessionid=bad")).status == 401
            assert len(asked) == 3
            assert (await it.get("/api/x")).status == 401  # without a cookie there is nothing to ask
            assert len(asked) == 3

    run(main())


def test_a_remembered_session_is_asked_about_again_after_its_time() -> None:
    async def main() -> None:
        asked: list[Message] = []
        auth = "{session: {check: /session, every: 1}}"
        async with guarded(auth, monolith=monolith_with_sessions(asked)) as it:
            await it.get("/api/x", "Cookie: sessionid=good")

            async def asked_again() -> bool:
                assert (await it.get("/api/x", "Cookie: sessionid=good")).status == 200
                return len(asked) > 1

            await until_true(asked_again)

    run(main())


def test_what_the_check_answers_may_be_passed_on() -> None:
    async def main() -> None:
        asked: list[Message] = []
        auth = "{session: {check: /session, refuse: pass}}"
        async with guarded(auth, monolith=monolith_with_sessions(asked)) as it:
            answer = await it.get("/api/x", "Cookie: sessionid=bad")
            assert (answer.status, answer.get(b"location"), answer.body) == (302, b"/login", b"log in")
            assert not it.catalog.requests

    run(main())


@pytest.mark.parametrize(
    "monolith", [hang, reply(b"broken", status=b"500 Broken"), reply(b"", status=b"404 No")]
)
def test_a_check_that_cannot_be_made_lets_nobody_in(monolith: Script) -> None:
    async def main() -> None:
        auth = "{session: {check: /session, timeout: 100}}"
        async with guarded(auth, monolith=monolith) as it:
            answer = await it.get("/api/x", "Cookie: sessionid=good")
            assert (answer.status, bool(answer.get(b"retry-after"))) == (503, True)
            assert not it.catalog.requests
            wire = it.drained()
            assert wire["catalog"]["items"] == []

    run(main())


def test_the_signed_cookie_is_the_cheap_form() -> None:
    async def main() -> None:
        signed = CookieSigner(SECRET).sign(USER_COOKIE, b"9").decode()
        async with guarded("{user: true}") as it:
            assert (await it.get("/api/x", f"Cookie: strangler_user={signed}")).status == 200
            assert it.catalog.requests[0].get(b"x-strangler-subject") == b"9"
            assert (await it.get("/api/x", "Cookie: strangler_user=9.forged")).status == 401

    run(main())


def jwks_of(*keys: tuple[str, Any]) -> bytes:
    return json.dumps({"keys": [jwk("RS256", key, kid=kid) for kid, key in keys]}).encode()


def test_keys_rotate_while_workers_run(tmp_path: Path) -> None:
    """The parent asks the URL; a token with a kid nobody knows is enough for every worker to learn the new
    keys; a URL that redirects or fails leaves the keys that are known."""

    async def main() -> None:
        async with lab(monolith=reply(jwks_of(("one", KEY)))) as issuer:
            url = f"http://127.0.0.1:{issuer.monolith.port}/jwks"
            more = (
                f"issuers: {{shop: {{issuer: i, audience: a, algorithms: [RS256], keys: {{jwks: '{url}'}}}}}}"
            )
            async with proxy(tmp_path, group="auth: {jwt: {issuer: shop}}", more=more) as it:

                async def status(key: Any, kid: str) -> int:
                    client = await it.connect()
                    try:
                        return (await client.get("/api/x", bearer(key, kid))).status
                    finally:
                        client.close()

                assert [await status(KEY, "one") for _ in range(8)] == [200] * 8
                issuer.monolith.script = reply(jwks_of(("two", OTHER_KEY)))

                async def learned() -> bool:  # within the pause between two questions, 5 s
                    return await status(OTHER_KEY, "two") == 200

                await until_true(learned, 10)
                assert [await status(OTHER_KEY, "two") for _ in range(8)] == [200] * 8
                assert [await status(KEY, "one") for _ in range(2)] == [401] * 2
                issuer.monolith.script = reply(b"", status=b"302 Found", headers=b"Location: /elsewhere\r\n")
                assert [await status(OTHER_KEY, "two") for _ in range(8)] == [200] * 8
                assert {request.target for request in issuer.monolith.requests} == {b"/jwks"}
                outcomes = await it.outcomes()
                assert outcomes["canary"]["refused"]["auth"] >= 2
                assert outcomes["canary"]["errors"] == 0
                metrics = (await it.admin.get("/metrics")).text
                assert 'strangler_refused_total{arm="canary",group="catalog",reason="auth"}' in metrics

    run(main())


def test_a_key_that_this_machine_has_not_is_a_fault_of_the_file(tmp_path: Path) -> None:
    async def main() -> None:
        keys = "issuers: {shop: {issuer: i, audience: a, algorithms: [HS256], keys: {secret: STRANGLER_NO_SUCH}}}"
        async with proxy(tmp_path) as it:
            before = (await it.status())["version"]
            it.write(group="auth: {jwt: {issuer: shop}}", more=keys)
            status = await it.until_status(lambda status: status["error"] is not None)
            (problem,) = status["error"]["problems"]
            assert "STRANGLER_NO_SUCH is not set" in problem["message"]
            assert (problem["field"], problem["line"] > 0) == ("issuers.shop.keys", True)
            assert status["version"] == before

    run(main())


def test_a_limit_holds_across_workers_and_their_death(tmp_path: Path) -> None:
    async def main() -> None:
        limit = "rate_limit: [{by: ip, requests: 1, per: hour, burst: 40}]"
        async with proxy(tmp_path, group=limit) as it:

            async def status() -> int:
                client = await it.connect()
                try:
                    return (await client.get("/api/x")).status
                finally:
                    client.close()

            first = await asyncio.gather(*(status() for _ in range(30)))
            assert first == [200] * 30
            pids = [worker["pid"] for worker in (await it.status())["workers"]]
            os.kill(pids[0], signal.SIGKILL)
            await it.until_status(
                lambda status: all(w["version"] and w["pid"] != pids[0] for w in status["workers"])
            )
            later = await asyncio.gather(*(status() for _ in range(30)))
            assert sorted(later) == [200] * 10 + [429] * 20

    run(main())


def test_the_side_that_is_asked_in_shadow_is_told_who_it_is_too() -> None:
    async def main() -> None:
        group = "auth: {jwt: {issuer: shop}}\n    shadow: {percent: 100}"
        async with lab(group=group, more=ISSUERS, percent=0) as it:
            it.plane.gateway.keys_came("shop", [jwk("RS256", KEY)])
            assert (await it.get("/api/x", bearer())).body == b"monolith"
            await until(lambda: bool(it.catalog.requests))
            assert it.catalog.requests[0].get(b"x-strangler-subject") == b"42"

    run(main())


def test_a_session_is_good_for_the_host_it_was_asked_about() -> None:
    async def sessions(request: Message, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        good = request.get(b"host") == b"shop.test"
        await reply(status=b"200 OK" if good else b"401 Unauthorized")(request, reader, writer)

    async def main() -> None:
        async with guarded("{session: {check: /api/session}}", monolith=sessions) as it:
            assert (await it.get("/api/x", "Cookie: sessionid=a")).status == 200
            client = await it.connect()
            await client.send(b"GET /api/x HTTP/1.1\r\nHost: other.test\r\nCookie: sessionid=a\r\n\r\n")
            assert (await client.response()).status == 401
            client.close()
            assert len(it.catalog.requests) == 1

    run(main())


def test_a_check_survives_a_kept_connection_that_was_just_being_closed() -> None:
    async def one_a_connection(
        request: Message, reader: asyncio.StreamReader, writer: asyncio.StreamWriter
    ) -> None:
        if writer in served:
            writer.transport.abort()
            return
        served.add(writer)
        await reply()(request, reader, writer)

    served: set[asyncio.StreamWriter] = set()

    async def main() -> None:
        async with guarded("{session: {check: /api/session}}", monolith=one_a_connection) as it:
            for session in "abc":
                assert (await it.get("/api/x", f"Cookie: sessionid={session}")).status == 200
            assert (it.monolith.connections, len(it.monolith.requests)) == (3, 5)

    run(main())


def test_a_token_that_cannot_be_read_to_its_end_is_a_bad_one() -> None:
    async def main() -> None:
        two = ISSUERS.replace(
            "{shop", "{other: {issuer: o, audience: a, algorithms: [RS256], keys: {pem: /x}}, shop"
        )
        async with lab(group="auth: {jwt: {issuer: [shop, other]}}", more=two) as it:
            it.plane.gateway.keys_came("shop", [jwk("RS256", KEY)])
            head = urlsafe_b64encode(b'{"alg":"RS256"}').rstrip(b"=")
            deep = urlsafe_b64encode(b"[" * 5000 + b"]" * 5000).rstrip(b"=")
            token = b".".join([head, deep, b"AAAA"]).decode()
            assert (await it.get("/api/x", f"Authorization: Bearer {token}")).status == 401
            assert not it.plane.active

    run(main())
