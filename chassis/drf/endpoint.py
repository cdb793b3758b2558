"""The order of decisions Django and DRF take before a view runs, and the ASGI shell around it.

    Host refused? → 400 page          CommonMiddleware, before any routing
    no such path? → 301 with a slash, or the API's own 404
    too many parameters? → 400 page
    format, Accept? → 404, 406        APIView.initial: negotiation comes first…
    (session is looked at)            …then authentication: from here answers vary by cookie
    OPTIONS → description
    GET, HEAD → the handler
    else → 421 when the monolith takes this method here, else 405

Unsafe methods belong to the monolith as long as it owns the rows. One that reaches this service was sent by a
router that is wrong about the owner, which 421 (RFC 9110 §15.5.20) says and a 405 would hide.

Sessions and CSRF tokens are the monolith's, so one thing is not imitated: the Set-Cookie with which Django
deletes a session cookie it does not know and replaces a malformed `csrftoken`. The client gets it with the next
answer of the monolith.
"""

import re
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass
from http import HTTPStatus
from typing import Any

from starlette.requests import Request
from starlette.responses import Response
from starlette.types import Receive, Scope, Send

from chassis.drf import answers
from chassis.drf.answers import Answer, ApiError
from chassis.drf.negotiation import Accepted, negotiate
from chassis.drf.query import Query, TooManyFieldsError, parse_query
from chassis.drf.request import ApiRequest, host_allowed, read_request
from chassis.drf.urls import append_slash
from chassis.http_problem import problem_response

_SAFE = frozenset({"GET", "HEAD", "OPTIONS", "TRACE"})


@dataclass(frozen=True, slots=True)
class Call:
    """What a handler is given: the request, its parameters, and the `arguments` found in its path."""

    request: ApiRequest
    query: Query
    arguments: Mapping[str, str]


Handler = Callable[[Call], Awaitable[Any]]


@dataclass(frozen=True, slots=True)
class Resource:
    """One URL pattern and what the monolith's view says of itself on OPTIONS.

    `path` is the template (for documentation and metrics), `pattern` what is matched; `methods` are all that
    the monolith's view allows, in DRF's order.
    """

    path: str
    pattern: re.Pattern[str]
    name: str
    description: str
    methods: tuple[str, ...]
    handler: Handler

    @property
    def allow(self) -> str:
        """The Allow header."""
        return ", ".join(self.methods)

    @property
    def metadata(self) -> dict[str, Any]:
        """The answer to OPTIONS."""
        return {
            "name": self.name,
            "description": self.description,
            "renders": ["application/json"],
            "parses": ["application/json"],
        }


@dataclass(frozen=True, slots=True)
class Site:
    """All resources of a service, as one ASGI application. `owner` takes the unsafe methods."""

    resources: tuple[Resource, ...]
    allowed_hosts: Sequence[str]
    owner: str

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer one HTTP request."""
        await (await self._respond(scope))(scope, receive, send)

    async def respond(self, request: Request) -> Response:
        """The same as a FastAPI endpoint."""
        return await self._respond(request.scope)

    async def answer(self, request: ApiRequest) -> Answer | None:
        """Decide the whole answer; None when the request is the owner's to take."""
        if not host_allowed(request.host, self.allowed_hosts):
            return answers.bad_host_page()
        if not request.path.endswith("/"):
            return answers.redirect(append_slash(request.path, request.query_string))
        resource, arguments = self.find(request.path)
        if resource is None:
            return _unknown_resource()
        if request.method not in _SAFE and request.method in resource.methods:
            return None
        try:
            query = parse_query(request.query_string)
        except TooManyFieldsError:
            return answers.bad_request_page()
        return await _view(resource, Call(request, query, arguments))

    def find(self, path: str) -> tuple[Resource | None, Mapping[str, str]]:
        """The resource at `path` (decoded) and the arguments in it."""
        for resource in self.resources:
            match = resource.pattern.fullmatch(path)
            if match is not None:
                return resource, match.groupdict()
        return None, {}

    async def _respond(self, scope: Scope) -> Response:
        try:
            request = read_request(scope)
        except UnicodeDecodeError:
            return _response(answers.undecodable_request())
        resource, _ = self.find(request.path)
        if resource is not None:
            scope["route"] = resource  # names the resource in the metrics, whatever the method
        answer = await self.answer(request)
        return _response(answer) if answer is not None else self._misdirected(request)

    def _misdirected(self, request: ApiRequest) -> Response:
        detail = (
            f"{request.method} {request.path} is taken by {self.owner}, which owns these rows; send it there"
        )
        return problem_response(HTTPStatus.MISDIRECTED_REQUEST, detail, owner=self.owner)


async def _view(resource: Resource, call: Call) -> Answer:
    accepted = Accepted()
    looked_at_session = False
    status = 200
    try:
        accepted = negotiate(call.request.accept, call.query.get("format"))
        looked_at_session = True
        match call.request.method:
            case "OPTIONS":
                data: Any = resource.metadata
            case "GET" | "HEAD":
                data = await resource.handler(call)
            case method:
                raise answers.method_not_allowed(method)
    except ApiError as error:
        status, data = error.status, error.body
    return answers.json_answer(
        data,
        status=status,
        allow=resource.allow,
        indent=accepted.indent,
        looked_at_session=looked_at_session,
    )


def _unknown_resource() -> Answer:
    """The monolith's catch-all below its API: refused before anything is negotiated or anybody identified."""
    body = answers.not_found().body
    return answers.json_answer(body, status=404, allow="OPTIONS", indent=None, looked_at_session=False)


def _response(answer: Answer) -> Response:
    response = Response(answer.body, answer.status)
    response.raw_headers = [
        (name.lower().encode("latin-1"), value.encode("latin-1")) for name, value in answer.headers
    ]
    return response
