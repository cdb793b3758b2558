"""JSON lines for the standard library's logging, each with the id of the request it belongs to.

`request_id` lives in a context variable set by `monolith.config.requests`; anything given as `extra=` becomes
a field.
"""

import json
import logging
from contextvars import ContextVar
from datetime import UTC, datetime

request_id: ContextVar[str] = ContextVar("request_id", default="")

_STANDARD = frozenset(vars(logging.makeLogRecord({}))) | {"message", "asctime", "taskName"}
# Django and uvicorn attach whole objects for their own formatters.
_NOT_FIELDS = frozenset({"request", "server_time", "color_message", "websocket"})


class JsonFormatter(logging.Formatter):
    """One JSON object a record: UTC time (ISO 8601), level, logger, event, service, request_id, extras."""

    def __init__(self, service: str) -> None:
        super().__init__()
        self._service = service

    def format(self, record: logging.LogRecord) -> str:
        """The record as one line."""
        line: dict[str, object] = {
            "timestamp": datetime.fromtimestamp(record.created, UTC).isoformat(timespec="microseconds"),
            "level": record.levelname.lower(),
            "logger": record.name,
            "event": record.getMessage(),
            "service": self._service,
        }
        if identifier := request_id.get():
            line["request_id"] = identifier
        for name, value in vars(record).items():
            if name not in _STANDARD and name not in _NOT_FIELDS:
                line.setdefault(name, value)
        if record.exc_info:
            line["exception"] = self.formatException(record.exc_info)
        return json.dumps(line, default=str, ensure_ascii=False)
