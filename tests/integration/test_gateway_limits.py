"""Rate limits and transforms on a real proxy."""

import asyncio
import json

from strangler_proxy.identity import USER_COOKIE, CookieSigner
from tests.proxy_lab import SECRET, Message, lab, reply, run, until


def statuses(answers: list[Message]) -> list[int]:
    return [answer.status for answer in answers]


def test_a_client_over_its_limit_gets_429_and_is_no_evidence() -> None:
    async def main() -> None:
        async with lab(group="rate_limit: [{by: ip, requests: 1, per: hour, burst: 3}]") as proxy:
            answers = [await proxy.get("/api/x") for _ in range(5)]
            assert statuses(answers) == [200, 200, 200, 429, 429]
            refusal = answers[-1]
            assert 3000 < int(refusal.get(b"retry-after")) <= 3601
            assert refusal.get(b"ratelimit-policy") == b'"ip";q=3;w=10800'
            assert json.loads(refusal.body)["status"] == 429
            assert len(proxy.catalog.requests) == 3
            wire = proxy.drained()
            assert wire["catalog"]["canary"]["refused"] == {"rate": 2}
            assert wire["catalog"]["canary"]["requests"] == 3
            assert sum(item[1] for item in wire["catalog"]["items"]) == 3
            assert (await proxy.get("/elsewhere")).status == 200

    run(main())


def test_users_are_counted_one_by_one_and_only_by_a_cookie_of_ours() -> None:
    async def main() -> None:
        async with lab(group="rate_limit: [{by: user, requests: 1, per: hour}]") as proxy:
            signer = CookieSigner(SECRET)

            def cookie(user: str) -> str:
                return f"Cookie: strangler_user={signer.sign(USER_COOKIE, user.encode()).decode()}"

            first = [await proxy.get("/api/x", cookie(user)) for user in ("1", "2", "1")]
            assert statuses(first) == [200, 200, 429]
            forged = [await proxy.get("/api/x", f"Cookie: strangler_user={n}.forged") for n in range(3)]
            assert statuses(forged) == [200, 429, 429]  # by address, all three

    run(main())


def test_the_site_limit_holds_across_groups_and_for_what_no_group_claims() -> None:
    async def main() -> None:
        more = "rate_limit: [{by: 'header:X-Key', requests: 1, per: hour, burst: 2}]"
        async with lab(more=more) as proxy:
            paths = ["/api/x", "/elsewhere", "/api/x", "/elsewhere"]
            assert statuses([await proxy.get(path, "X-Key: k") for path in paths]) == [200, 200, 429, 429]
            assert (await proxy.get("/elsewhere", "X-Key: another")).status == 200
            wire = proxy.drained()
            assert wire["*"]["control"]["refused"] == {"rate": 1}
            assert wire["*"]["items"] == []

    run(main())


def test_a_refused_upload_is_answered_and_the_connection_closed() -> None:
    async def main() -> None:
        async with lab(group="rate_limit: [{by: ip, requests: 1, per: hour}]") as proxy:
            await proxy.get("/api/x")
            client = await proxy.connect()
            await client.send(b"POST /api/x HTTP/1.1\r\nHost: a\r\nContent-Length: 1000000\r\n\r\nbegin")
            answer = await client.response()
            assert (answer.status, answer.get(b"connection")) == (429, b"close")
            client.close()
            await until(lambda: not proxy.plane.active)

    run(main())


def test_a_group_without_a_backend_has_its_duties_and_moves_nothing() -> None:
    async def main() -> None:
        more = "  orders: {paths: ['/orders'], rate_limit: [{by: group, requests: 1, per: hour}]}"
        async with lab(more=more) as proxy:
            answers = [await proxy.get("/orders", "X-Strangler-Side: canary") for _ in range(2)]
            assert statuses(answers) == [200, 429]
            assert answers[0].body == b"monolith"

    run(main())


def test_headers_and_paths_are_changed_for_each_side() -> None:
    transform = """transform:
      request: {set: {X-Api: "2"}, remove: [X-Debug]}
      response: {remove: [X-Powered-By], set: {X-Via: gateway}}
      path: {prefix: {/api: /v1}}
      canary: {path: {regex: {match: '/api/(.*)', to: '/service/\\1'}}, request: {add: {X-Side: new}}}
      control: {request: {add: {X-Side: old}}}"""

    async def main() -> None:
        async with lab(
            group=transform,
            catalog=reply(b"no", status=b"500 No"),
            monolith=reply(b"yes", headers=b"X-Powered-By: x\r\n"),
        ) as proxy:
            answer = await proxy.get("/api/a%2Fb?c=/api/d", "X-Debug: 1", "X-Api: 1")
            assert (answer.body, answer.get(b"x-via"), answer.get(b"x-powered-by")) == (
                b"yes",
                b"gateway",
                b"",
            )
            (canary,), (control,) = proxy.catalog.requests, proxy.monolith.requests
            assert canary.target == b"/service/a%2Fb?c=/api/d"
            assert control.target == b"/v1/a%2Fb?c=/api/d"  # the fallback gets its own side's changes
            for request, side in ((canary, b"new"), (control, b"old")):
                assert (request.get(b"x-api"), request.get(b"x-side"), request.get(b"x-debug")) == (
                    b"2",
                    side,
                    b"",
                )

    run(main())


def test_a_public_answer_made_by_a_transform_keeps_the_identity_cookie_private() -> None:
    async def main() -> None:
        async with lab(group='transform: {response: {set: {Cache-Control: "public, max-age=60"}}}') as proxy:
            answer = await proxy.get("/api/x")
            assert answer.all(b"set-cookie")
            assert b'private="Set-Cookie"' in answer.all(b"cache-control")

    run(main())


def test_many_clients_at_once_never_get_more_than_the_limit() -> None:
    async def main() -> None:
        async with lab(group="rate_limit: [{by: group, requests: 1, per: hour, burst: 20}]") as proxy:
            answers = await asyncio.gather(*(proxy.get("/api/x") for _ in range(60)))
            assert sorted(statuses(list(answers))) == [200] * 20 + [429] * 40

    run(main())
