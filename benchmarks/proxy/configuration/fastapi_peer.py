"""The peer most tutorials build: FastAPI + httpx, streaming, one shared client, sticky by a hash of the
cookie."""

import os
import zlib
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import httpx
from fastapi import FastAPI, Request
from starlette.background import BackgroundTask
from starlette.responses import StreamingResponse

_DROPPED = {"connection", "keep-alive", "transfer-encoding", "te", "upgrade", "x-forwarded-for"}


@asynccontextmanager
async def lifespan(application: FastAPI) -> AsyncIterator[None]:
    """One client for the life of the application."""
    limits = httpx.Limits(max_connections=512, max_keepalive_connections=512)
    async with httpx.AsyncClient(limits=limits, timeout=60) as client:
        application.state.client = client
        yield


application = FastAPI(lifespan=lifespan)


@application.api_route("/{path:path}", methods=["GET", "HEAD", "OPTIONS", "POST", "PUT", "PATCH", "DELETE"])
async def forward(request: Request, path: str) -> StreamingResponse:
    """Forward to one of two ports."""
    side = zlib.crc32(request.cookies.get("strangler_user", "").encode()) % 100 < 50
    port = os.environ["PEER_A" if side else "PEER_B"]
    client: httpx.AsyncClient = request.app.state.client
    headers = [(name, value) for name, value in request.headers.items() if name not in _DROPPED]
    headers.append(("x-forwarded-for", request.client.host if request.client else ""))
    body = request.stream() if request.method in {"POST", "PUT", "PATCH"} else None
    outgoing = client.build_request(
        request.method,
        f"http://127.0.0.1:{port}/{path}",
        params=request.query_params,
        headers=headers,
        content=body,
    )
    response = await client.send(outgoing, stream=True)
    passed = {name: value for name, value in response.headers.items() if name not in _DROPPED}
    return StreamingResponse(
        response.aiter_raw(),
        status_code=response.status_code,
        headers=passed,
        background=BackgroundTask(response.aclose),
    )
