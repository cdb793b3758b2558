"""One virtual shopper: a cookie jar, an identity, a journey under way. No socket.

`next_request` gives the bytes to send, `take` the answer to learn from. In between the shopper is busy: one
thing at a time, as people do.
"""

import json
from collections.abc import Generator
from dataclasses import dataclass, field
from random import Random
from urllib.parse import urlencode

from workshop.traffic.client import Answer
from workshop.traffic.cookies import Jar
from workshop.traffic.journeys import Journey, Step
from workshop.traffic.visitors import Visitor

# the proxy's own first-party cookies (strangler_proxy.identity): who it takes the shopper for
_USER_COOKIE = "strangler_user"
_ANONYMOUS_COOKIE = "strangler_id"


@dataclass(slots=True)
class Shopper:
    """`name` is the driver's number for this shopper; `visitor` what its journeys may know and use."""

    name: str
    host: str
    visitor: Visitor
    random: Random
    jar: Jar = field(default_factory=Jar)
    ready_at: float = 0.0
    _journey: Journey | None = None
    _step: Step | None = None

    def next_step(self) -> Step:
        """What this shopper does next; begins a new journey when the last one is over."""
        while self._step is None:
            self._journey = self.visitor.choose(self.random)
            self._step = next(self._journey, None)
        return self._step

    def request(self, step: Step, *, request_id: str) -> bytes:
        """`step` as HTTP/1.1, with this shopper's cookies."""
        lines = [
            f"{step.method} {step.path} HTTP/1.1",
            f"Host: {self.host}",
            "User-Agent: workshop-shopper",
            f"Accept: {'text/html' if step.page else 'application/json'}",
            f"X-Request-ID: {request_id}",
        ]
        if cookies := self.jar.header():
            lines.append(f"Cookie: {cookies}")
        body = b""
        if step.form is not None:
            body = urlencode(step.form).encode()
            lines.append("Content-Type: application/x-www-form-urlencoded")
        elif step.json is not None:
            body = json.dumps(step.json).encode()
            lines.append("Content-Type: application/json")
        if not step.safe:
            lines.append(f"X-CSRFToken: {self.jar.values.get('csrftoken', '')}")
            lines.append(f"Content-Length: {len(body)}")
        lines.extend(f"{name}: {value}" for name, value in step.headers.items())
        return ("\r\n".join(lines) + "\r\n\r\n").encode("latin-1") + body

    def identity(self) -> str:
        """Whom the proxy takes this shopper for, by the cookies it would send now; empty when it has none."""
        if _USER_COOKIE in self.jar.values:
            return f"user:{self.visitor.account or self.name}"
        if anonymous := self.jar.values.get(_ANONYMOUS_COOKIE):
            return f"anonymous:{anonymous}"
        return ""

    def take(self, answer: Answer | None) -> None:
        """Learn from the answer to the current step; None when it broke, which ends the journey."""
        journey, self._step = self._journey, None
        if answer is None or journey is None:
            self._journey = None
            return
        self.jar.take(value for name, value in answer.headers if name == b"set-cookie")
        self._step = _send(journey, answer)


def _send(journey: Generator[Step, Answer, None], answer: Answer) -> Step | None:
    try:
        return journey.send(answer)
    except StopIteration:
        return None
