"""The proxy's admin port, as values and one client. The wire shapes are in docs/reference/contracts.md."""

import json
from collections.abc import AsyncIterator, Mapping, Sequence
from dataclasses import dataclass
from decimal import Decimal
from typing import Any

import httpx

from migration_plans.outcomes import Outcome, read_items

TOKEN_VARIABLE = "STRANGLER_ADMIN_TOKEN"  # noqa: S105  # the variable's name, not a secret


class ProxyUnreachableError(Exception):
    """The proxy's admin port does not answer, or not what the contract says."""


class ReloadRefusedError(Exception):
    """The proxy refused the routes file; `problems` say why. It keeps running the routes it had."""

    def __init__(self, problems: Sequence[Mapping[str, Any]]) -> None:
        self.problems = tuple(problems)
        named = "; ".join(
            f"{p.get('file')}:{p.get('line')}: {p.get('field')}: {p.get('message')}" for p in problems
        )
        super().__init__(f"the proxy refused the routes file and keeps the routes it had: {named}")


@dataclass(frozen=True, slots=True)
class Worker:
    """One worker process and the routes version it runs since `applied_at_ns` (wall clock)."""

    worker: str
    pid: int
    version: str
    applied_at_ns: int


@dataclass(frozen=True, slots=True)
class ProxyStatus:
    """`percents` by group as the running routes have them; `problems` of the last refused edit."""

    version: str
    workers: tuple[Worker, ...]
    percents: Mapping[str, Decimal]
    problems: tuple[Mapping[str, Any], ...] = ()
    raw: Mapping[str, Any] | None = None


@dataclass(frozen=True, slots=True)
class Hello:
    """First line of the outcome stream."""

    version: str


@dataclass(frozen=True, slots=True)
class Batch:
    """Outcomes of one worker and group, in the worker's order."""

    group: str
    outcomes: tuple[Outcome, ...]


@dataclass(frozen=True, slots=True)
class Tick:
    """A line that says nothing but that the stream lives: heartbeat, version, or one this client does not
    know.
    """

    kind: str


Line = Hello | Batch | Tick


class ProxyAdmin:
    """Client of one proxy's admin port at `url`. Every method raises ProxyUnreachableError.

    `timeout` (seconds) covers one call; the outcome stream counts as cut when it is silent for that long.
    `token` is the port's admin token; without it nothing can be changed there.
    """

    def __init__(self, url: str, *, token: str = "", timeout: float = 2.0) -> None:
        self.url = url.rstrip("/")
        self._timeout = timeout
        headers = {"Authorization": f"Bearer {token}"} if token else {}
        self._client = httpx.Client(base_url=self.url, timeout=timeout, headers=headers)

    def close(self) -> None:
        """Close the connections."""
        self._client.close()

    def __enter__(self) -> "ProxyAdmin":
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def status(self) -> ProxyStatus:
        """`GET /admin/status`."""
        data = self._json("GET", "/admin/status")
        try:
            return ProxyStatus(
                version=data["version"],
                workers=_workers(data["workers"]),
                percents={name: Decimal(str(group["percent"])) for name, group in data["groups"].items()},
                problems=tuple((data.get("error") or {}).get("problems", ())),
                raw=data,
            )
        except (KeyError, TypeError, ValueError, ArithmeticError) as error:
            raise self._broken("/admin/status", error) from error

    def outcomes(self) -> Mapping[str, Any]:
        """`GET /admin/outcomes`: cumulative counts by group and arm."""
        return self._json("GET", "/admin/outcomes")

    def comparisons(self) -> Mapping[str, Any]:
        """`GET /admin/comparisons`: how the answers of both sides compare, by group."""
        return self._json("GET", "/admin/comparisons")

    def reload(self) -> tuple[str, tuple[Worker, ...]]:
        """`POST /admin/reload`: version and workers, once every worker runs it. Raises ReloadRefusedError
        as well.
        """
        data = self._json("POST", "/admin/reload")
        try:
            return data["version"], _workers(data["workers"])
        except (KeyError, TypeError, ValueError) as error:
            raise self._broken("/admin/reload", error) from error

    def invalidate(self, tables: Sequence[str]) -> int:
        """`POST /admin/invalidate`: what is read from `tables` is in no worker's cache any more. Returns how many
        groups have a cache at all.
        """
        data = self._json("POST", "/admin/invalidate", {"tables": list(tables)})
        try:
            return int(data["caches"])
        except (KeyError, TypeError, ValueError) as error:
            raise self._broken("/admin/invalidate", error) from error

    def running_routes(self) -> bytes:
        """`GET /admin/routes`: the text of the routes in use, also while the file on disk is refused."""
        return self._answer("GET", "/admin/routes").content

    async def stream(self) -> AsyncIterator[Line]:
        """`GET /admin/outcomes/stream`, line by line, until it breaks (ProxyUnreachableError)."""
        timeout = httpx.Timeout(self._timeout)
        try:
            async with (
                httpx.AsyncClient(base_url=self.url, timeout=timeout) as client,
                client.stream("GET", "/admin/outcomes/stream") as response,
            ):
                if response.status_code != 200:
                    raise ProxyUnreachableError(
                        f"{self.url}/admin/outcomes/stream answered {response.status_code}"
                    )
                async for text in response.aiter_lines():
                    yield _line(text)
        except (httpx.HTTPError, OSError) as error:
            raise ProxyUnreachableError(f"the outcome stream of {self.url} is cut: {_why(error)}") from error
        except (ValueError, KeyError, TypeError) as error:
            raise self._broken("/admin/outcomes/stream", error) from error
        raise ProxyUnreachableError(f"the outcome stream of {self.url} has ended")

    def _answer(self, method: str, path: str, body: Mapping[str, Any] | None = None) -> httpx.Response:
        try:
            response = self._client.request(method, path, json=body)
            if response.status_code in (401, 403):
                raise ProxyUnreachableError(
                    f"the proxy's admin port {self.url} refuses {method} {path} "
                    f"({response.status_code}); give both the same {TOKEN_VARIABLE}"
                )
            if response.status_code != 409:
                response.raise_for_status()
        except (httpx.HTTPError, OSError) as error:
            raise ProxyUnreachableError(
                f"the proxy's admin port {self.url} does not answer {path} ({_why(error)}); "
                f"is `strangler proxy` running, and STRANGLER_PROXY_ADMIN right?"
            ) from error
        return response

    def _json(self, method: str, path: str, body: Mapping[str, Any] | None = None) -> Mapping[str, Any]:
        response = self._answer(method, path, body)
        try:
            data = response.json()
            if response.status_code == 409:
                raise ReloadRefusedError(data["problems"])
        except (ValueError, KeyError) as error:
            raise self._broken(path, error) from error
        if not isinstance(data, dict):
            raise self._broken(path, TypeError("not a JSON object"))
        return data

    def _broken(self, path: str, error: Exception) -> ProxyUnreachableError:
        return ProxyUnreachableError(
            f"{self.url}{path} does not speak the contract of the admin port: {error!r}"
        )


def _line(text: str) -> Line:
    data = json.loads(text)
    match data["type"]:
        case "hello":
            return Hello(str(data["version"]))
        case "batch":
            return Batch(str(data["group"]), tuple(read_items(data["items"])))
        case kind:
            return Tick(str(kind))


def _workers(items: Sequence[Mapping[str, Any]]) -> tuple[Worker, ...]:
    return tuple(
        # a worker that has just started runs no version yet
        Worker(
            str(item["id"]),
            int(item.get("pid") or 0),
            str(item["version"] or ""),
            int(item["applied_at_ns"] or 0),
        )
        for item in items
    )


def _why(error: Exception) -> str:
    return str(error) or type(error).__name__
