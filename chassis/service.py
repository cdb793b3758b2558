"""Factory of the HTTP services: what each of them needs and none should write again.

A request passes, from outside in:

    uvicorn → RequestMiddleware → FastAPI's routing → the service's endpoint

`RequestMiddleware` gives the request its identifiers (`chassis.correlation`), measures it, writes one access
line, and answers what nobody caught with a 500 problem document that tells the client nothing but the
request's identifier. `create_service` adds three endpoints beside the service's own:

* `/health`: the process lives; looks at nothing else, so a broken database never gets it restarted;
* `/ready`: it can serve, because every named check passes in time; else 503 that says which did not and why;
* `/metrics`: Prometheus text.
"""

import asyncio
from collections.abc import Awaitable, Callable, Mapping
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass
from http import HTTPStatus
from typing import Any

import structlog
from fastapi import FastAPI, Request, Response
from fastapi.responses import JSONResponse
from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, ProcessCollector, generate_latest
from prometheus_client.exposition import CONTENT_TYPE_LATEST
from starlette.datastructures import Headers, MutableHeaders
from starlette.exceptions import HTTPException
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from chassis import correlation
from chassis.clock import Clock, SystemClock
from chassis.http_problem import problem_response

Check = Callable[[], Awaitable[None]]
Lifespan = Callable[[FastAPI], AbstractAsyncContextManager[None]]

_METHODS = frozenset({"GET", "HEAD", "OPTIONS", "POST", "PUT", "PATCH", "DELETE"})
_OWN_PATHS = frozenset({"/health", "/ready", "/metrics", "/position"})
_BUCKETS = (0.001, 0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1.0, 2.0, 5.0)


@dataclass(frozen=True, slots=True)
class CheckResult:
    """Outcome of one readiness check; `fault` is None when it passed. `milliseconds` it took."""

    name: str
    fault: str | None
    milliseconds: float


class ServiceMetrics:
    """What every service counts, in a registry of its own so that two services can share a process."""

    def __init__(self) -> None:
        self.registry = CollectorRegistry()
        self.requests = Counter(
            "http_requests_total",
            "Requests answered",
            ("method", "route", "status"),
            registry=self.registry,
        )
        self.seconds = Histogram(
            "http_request_duration_seconds",
            "Time from the request's head to the last byte handed to the server",
            ("method", "route"),
            buckets=_BUCKETS,
            registry=self.registry,
        )
        self.in_flight = Gauge("http_requests_in_flight", "Requests being served now", registry=self.registry)
        ProcessCollector(registry=self.registry)


def create_service(
    name: str,
    *,
    title: str,
    description: str,
    lifespan: Lifespan,
    checks: Mapping[str, Check],
    check_timeout: float = 1.0,
    clock: Clock | None = None,
) -> FastAPI:
    """A FastAPI application with the endpoints and the middleware described above.

    A check is a coroutine function that raises when the service cannot serve; it fails too when it takes
    longer than `check_timeout` seconds. Slash redirects are off: a service that stands in for a Django
    application answers a missing slash in Django's way itself.
    """
    clock = clock or SystemClock()
    metrics = ServiceMetrics()
    app = FastAPI(
        title=title,
        description=description,
        lifespan=lifespan,
        redirect_slashes=False,
        docs_url=None,
        redoc_url=None,
        openapi_url="/openapi.json",
    )
    app.add_middleware(RequestMiddleware, metrics=metrics, clock=clock)
    app.add_exception_handler(HTTPException, _http_exception)

    @app.get("/health", include_in_schema=False)
    async def health() -> dict[str, str]:
        return {"service": name, "status": "alive"}

    @app.get("/ready", include_in_schema=False)
    async def ready() -> Response:
        results = await run_checks(checks, seconds=check_timeout, clock=clock)
        report = {
            result.name: {
                "ok": result.fault is None,
                "milliseconds": result.milliseconds,
                "fault": result.fault,
            }
            for result in results
        }
        faults = [f"{result.name}: {result.fault}" for result in results if result.fault is not None]
        if faults:
            return problem_response(HTTPStatus.SERVICE_UNAVAILABLE, "; ".join(faults), checks=report)
        return JSONResponse({"service": name, "status": "ready", "checks": report})

    @app.get("/metrics", include_in_schema=False)
    async def show_metrics() -> Response:
        return Response(generate_latest(metrics.registry), media_type=CONTENT_TYPE_LATEST)

    return app


async def run_checks(checks: Mapping[str, Check], *, seconds: float, clock: Clock) -> tuple[CheckResult, ...]:
    """Run all `checks` at the same time, each for at most `seconds`. Never raises for a failed check."""

    async def run(name: str, check: Check) -> CheckResult:
        start = clock.monotonic()
        fault: str | None = None
        try:
            async with asyncio.timeout(seconds):
                await check()
        except TimeoutError:
            fault = f"no answer within {seconds:g} s"
        except Exception as error:
            fault = str(error).strip() or type(error).__name__
        return CheckResult(name, fault, round((clock.monotonic() - start) * 1000, 3))

    async with asyncio.TaskGroup() as group:
        tasks = [group.create_task(run(name, check)) for name, check in checks.items()]
    return tuple(task.result() for task in tasks)


class RequestMiddleware:
    """Identifiers, access log, metrics and the last net for exceptions. Plain ASGI: no copy of any body."""

    def __init__(self, app: ASGIApp, *, metrics: ServiceMetrics, clock: Clock) -> None:
        self.app = app
        self.metrics = metrics
        self.clock = clock
        self.log = structlog.stdlib.get_logger("chassis.service")

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one ASGI connection."""
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        headers = Headers(scope=scope)
        identifiers = {"request_id": correlation.request_id(headers.get("x-request-id"))}
        trace = correlation.trace_id(headers.get("traceparent"))
        if trace is not None:
            identifiers["trace_id"] = trace
        with structlog.contextvars.bound_contextvars(**identifiers):
            await self._serve(scope, receive, send, identifiers["request_id"])

    async def _serve(self, scope: Scope, receive: Receive, send: Send, request_id: str) -> None:
        start = self.clock.monotonic()
        status = 0
        size = 0

        async def counting_send(message: Message) -> None:
            nonlocal status, size
            if message["type"] == "http.response.start":
                status = message["status"]
                MutableHeaders(raw=message.setdefault("headers", []))["X-Request-ID"] = request_id
            elif message["type"] == "http.response.body":
                size += len(message.get("body", b""))
            await send(message)

        self.metrics.in_flight.inc()
        try:
            await self.app(scope, receive, counting_send)
        except Exception:
            self.log.exception("unhandled", method=scope["method"], path=scope["path"])
            if status:  # too late for another answer: let the server cut the connection
                raise
            problem = problem_response(
                HTTPStatus.INTERNAL_SERVER_ERROR,
                "the service met a fault it does not know; its log has the details under this request_id",
                request_id=request_id,
            )
            await problem(scope, receive, counting_send)
        finally:
            self.metrics.in_flight.dec()
            self._record(scope, status=status, size=size, seconds=self.clock.monotonic() - start)

    def _record(self, scope: Scope, *, status: int, size: int, seconds: float) -> None:
        method = scope["method"] if scope["method"] in _METHODS else "OTHER"
        # the pattern, not the path: a label for each product would exhaust the metrics store
        route = getattr(scope.get("route"), "path", "unmatched")
        self.metrics.requests.labels(method, route, str(status)).inc()
        self.metrics.seconds.labels(method, route).observe(seconds)
        write = self.log.debug if scope["path"] in _OWN_PATHS else self.log.info
        write(
            "request",
            method=scope["method"],
            path=scope["path"],
            status=status,
            bytes=size,
            milliseconds=round(seconds * 1000, 3),
        )


async def _http_exception(_request: Request, error: Any) -> Response:
    headers = dict(error.headers) if error.headers else None
    return problem_response(HTTPStatus(error.status_code), str(error.detail), headers=headers)
