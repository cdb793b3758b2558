"""Every log line is one JSON object with the same keys, whichever logger wrote it."""

import io
import json
import logging
from collections.abc import Iterator
from typing import Any

import pytest
import structlog

from chassis import logs


@pytest.fixture
def stream() -> Iterator[io.StringIO]:
    """The configured stream; logging is as before afterwards."""
    root, access = logging.getLogger(), logging.getLogger("uvicorn.access")
    before = (root.handlers, root.level, access.handlers, access.propagate)
    found = io.StringIO()
    logs.configure("shop", stream=found)
    yield found
    root.handlers, access.handlers, access.propagate = before[0], before[2], before[3]
    root.setLevel(before[1])
    structlog.reset_defaults()
    structlog.contextvars.clear_contextvars()


def _lines(stream: io.StringIO) -> list[dict[str, Any]]:
    return [json.loads(line) for line in stream.getvalue().splitlines()]


def test_structlog_and_stdlib_write_the_same_shape(stream: io.StringIO) -> None:
    with structlog.contextvars.bound_contextvars(request_id="r-1"):
        structlog.stdlib.get_logger("a").info("made", count=2)
        logging.getLogger("b").warning("made %d", 3, extra={"kind": "ü"})
    logging.getLogger("uvicorn.error").info("up", extra={"color_message": "\x1b[1mup"})
    first, second, third = _lines(stream)
    assert (first["event"], first["count"], first["logger"]) == ("made", 2, "a")
    assert (second["event"], second["kind"], second["level"]) == ("made 3", "ü", "warning")
    assert {first["request_id"], second["request_id"]} == {"r-1"}
    assert "request_id" not in third
    assert "color_message" not in third
    assert all(
        line["service"] == "shop" and line["timestamp"].endswith("Z") for line in (first, second, third)
    )


def test_an_exception_is_one_line(stream: io.StringIO) -> None:
    try:
        int("no")
    except ValueError:
        structlog.stdlib.get_logger("a").exception("failed")
        logging.getLogger("b").exception("failed too")
    first, second = _lines(stream)
    assert "ValueError: invalid literal" in first["exception"]
    assert "ValueError: invalid literal" in second["exception"]


def test_below_the_level_and_access_lines_are_dropped(stream: io.StringIO) -> None:
    structlog.stdlib.get_logger("a").debug("noise")
    logging.getLogger("uvicorn.access").info("GET /")
    assert _lines(stream) == []
