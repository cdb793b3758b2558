"""What the service factory gives every service, asked through ASGI without a socket."""

import asyncio
import json
import logging
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from typing import Any

import httpx
import pytest
import structlog
from fastapi import FastAPI
from starlette.responses import StreamingResponse

from chassis.service import create_service

pytestmark = pytest.mark.anyio


@pytest.fixture
def anyio_backend() -> str:
    return "asyncio"


@pytest.fixture(autouse=True)
def _structlog_to_stdlib() -> Iterator[None]:
    structlog.configure(
        processors=[structlog.contextvars.merge_contextvars, structlog.processors.JSONRenderer()],
        logger_factory=structlog.stdlib.LoggerFactory(),
        wrapper_class=structlog.stdlib.BoundLogger,
    )
    yield
    structlog.reset_defaults()


async def _fine() -> None:
    return None


async def _broken() -> None:
    raise ConnectionError("the database went away")


async def _hangs() -> None:
    await asyncio.Event().wait()


def _service(**checks: Any) -> FastAPI:
    @asynccontextmanager
    async def lifespan(_app: FastAPI) -> AsyncIterator[None]:
        yield

    app = create_service(
        "shop", title="T", description="D", lifespan=lifespan, checks=checks, check_timeout=0.05
    )

    @app.get("/things/{number}")
    async def thing(number: str) -> dict[str, str]:
        return {"number": number}

    @app.get("/bug")
    async def bug() -> None:
        raise RuntimeError("do not show this")

    @app.get("/late-bug")
    async def late_bug() -> StreamingResponse:
        async def pieces() -> AsyncIterator[bytes]:
            yield b"begun"
            raise RuntimeError("too late")

        return StreamingResponse(pieces())

    return app


async def _get(app: FastAPI, path: str, **headers: str) -> httpx.Response:
    transport = httpx.ASGITransport(app=app)
    async with httpx.AsyncClient(transport=transport, base_url="http://shop.test") as client:
        return await client.get(path, headers=headers)


async def test_health_looks_at_nothing_else() -> None:
    answer = await _get(_service(database=_broken), "/health")
    assert (answer.status_code, answer.json()) == (200, {"service": "shop", "status": "alive"})


async def test_ready_when_every_check_passes() -> None:
    answer = await _get(_service(database=_fine, schema=_fine), "/ready")
    assert answer.status_code == 200
    assert all(check["ok"] for check in answer.json()["checks"].values())


async def test_not_ready_says_which_check_and_why() -> None:
    answer = await _get(_service(database=_broken, schema=_fine, cache=_hangs), "/ready")
    assert answer.status_code == 503
    assert answer.headers["content-type"] == "application/problem+json"
    assert answer.json()["detail"] == "database: the database went away; cache: no answer within 0.05 s"
    assert answer.json()["checks"]["schema"]["ok"]


async def test_a_sane_request_id_comes_back_and_any_other_is_replaced() -> None:
    app = _service()
    assert (await _get(app, "/health", **{"X-Request-ID": "r-1"})).headers["x-request-id"] == "r-1"
    assert len((await _get(app, "/health", **{"X-Request-ID": "a b"})).headers["x-request-id"]) == 32


async def test_an_unknown_fault_is_logged_and_not_shown(caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.INFO):
        answer = await _get(_service(), "/bug", **{"X-Request-ID": "r-2"})
    assert answer.status_code == 500
    assert answer.headers["content-type"] == "application/problem+json"
    assert answer.json()["request_id"] == "r-2"
    assert "do not show this" not in answer.text
    ours = [record for record in caplog.records if record.name == "chassis.service"]
    unhandled, access = (json.loads(record.getMessage()) for record in ours)
    assert (unhandled["event"], unhandled["request_id"]) == ("unhandled", "r-2")
    assert (access["event"], access["status"], access["request_id"]) == ("request", 500, "r-2")


async def test_a_fault_after_the_first_byte_cuts_the_connection() -> None:
    with pytest.raises(RuntimeError, match="too late"):
        await _get(_service(), "/late-bug")


async def test_an_unknown_path_is_a_problem_document() -> None:
    answer = await _get(_service(), "/nowhere")
    assert (answer.status_code, answer.json()["title"]) == (404, "Not Found")


async def test_metrics_name_the_pattern_not_the_path() -> None:
    app = _service()
    for path in ("/things/1", "/things/2", "/bug", "/nowhere/1"):
        await _get(app, path)
    text = (await _get(app, "/metrics")).text
    assert 'http_requests_total{method="GET",route="/things/{number}",status="200"} 2.0' in text
    assert 'http_requests_total{method="GET",route="/bug",status="500"} 1.0' in text
    assert 'http_requests_total{method="GET",route="unmatched",status="404"} 1.0' in text
    assert "/things/1" not in text
