"""What the client of one request is sent: the head of a backend's answer, or an answer of the proxy's own.

The base of `exchange.Exchange` that writes; when and why is decided there.
"""

from __future__ import annotations

from strangler_proxy.account import Reporting
from strangler_proxy.answers import answer
from strangler_proxy.decide import Decision
from strangler_proxy.duties import Answer
from strangler_proxy.headers import Origin, ResponseHead, response_start
from strangler_proxy.identity import cookie_lines
from strangler_proxy.request import Client, Request
from strangler_proxy.table import Group


class Replying(Reporting):
    """Writes to the client. `_close_after` is set by whoever wrote a head: the connection ends with the answer."""

    __slots__ = (
        "_client",
        "_close_after",
        "_decision",
        "_falling_back",
        "_group",
        "_head_request",
        "_issue",
        "_origin",
        "_rechunk",
        "_request",
        "_request_id",
        "_wrote",
        "request_complete",
    )

    _client: Client
    _close_after: bool
    _decision: Decision | None
    _falling_back: bool
    _group: Group | None
    _head_request: bool
    _issue: bytes
    _origin: Origin
    _rechunk: bool
    _request: Request
    _request_id: bytes
    _wrote: bytes
    request_complete: bool

    def _finish(self, *, close: bool, abort: bool) -> None:
        raise NotImplementedError

    def _answer(
        self, status: int, detail: str, *, retry_after: float | None = None, lines: tuple[bytes, ...] = ()
    ) -> None:
        """The proxy's own answer."""
        close = not self._request.keep_alive or not self.request_complete or self._plane.draining
        self._client.send(
            answer(
                status=status,
                detail=detail,
                request_id=self._request_id,
                close=close,
                body=not self._head_request,
                retry_after=retry_after,
                lines=lines,
            )
        )
        self._finish(close=close, abort=False)

    def _answer_with(self, said: Answer) -> None:
        """A whole answer from the proxy's own memory."""
        bodiless = said.status in (204, 304)
        head = ResponseHead(lines=list(said.lines), length=None if bodiless else len(said.body))
        head.reread_cache_control()
        out = self._response_bytes(said.status, said.reason, head)
        self._client.send(out if self._head_request or bodiless else out + said.body)
        self._finish(close=self._close_after, abort=False)

    def _response_bytes(self, status: int, reason: bytes, head: ResponseHead) -> bytes:
        request = self._request
        start, self._rechunk, ends_with_close = response_start(
            status, reason, head, head_request=self._head_request, http11=request.http11
        )
        # An answer before the request was whole: the rest of the request will not be read
        early = not self.request_complete
        self._close_after = ends_with_close or early or not request.keep_alive or self._plane.draining
        self._close_after &= status != 101  # there the end belongs to another protocol
        if self._close_after:
            start += b"Connection: close\r\n"
        elif not request.http11:
            start += b"Connection: keep-alive\r\n"
        if self._group is not None and self._group.expose:
            start += b"X-Strangler-Arm: %b\r\n" % self._arm_shown()
        if self._routes.via.responses:
            start += self._routes.via.line
        return b"%bX-Request-ID: %b\r\n%b\r\n" % (start, self._request_id, self._cookie_lines(head))

    def _arm_shown(self) -> bytes:
        if self._falling_back or self._decision is None:
            return b"fallback"
        return self._decision.shown

    def _cookie_lines(self, head: ResponseHead) -> bytes:
        page = self._group is None and head.html and self._routes.any_sticky_user
        if head.user is None and not page and not self._issue:
            return self._wrote
        return self._wrote + cookie_lines(
            signer=self._plane.signer,
            cookies=self._request.head.cookies,
            said=head.user if self._backend.name == self._routes.default else None,
            issue=self._issue,
            page=self._plane.new_anonymous_id() if page else b"",
            secure=self._origin.secure,
            shared_cacheable=head.shared_cacheable,
        )
