"""The request's id in every log record of its thread or task.

A log record factory, not a filter: filters sit on handlers, and the site's handlers are the site's business.
A record that has a `request_id` already keeps it.
"""

import logging
from collections.abc import Callable
from contextvars import ContextVar
from typing import Any

request_id: ContextVar[str | None] = ContextVar("strangler_seam_request_id", default=None)


def add_request_id_to_records() -> None:
    """Wrap the present record factory. Safe to call again."""
    factory = logging.getLogRecordFactory()
    if not isinstance(factory, _WithRequestId):
        logging.setLogRecordFactory(_WithRequestId(factory))


class _WithRequestId:
    def __init__(self, factory: Callable[..., logging.LogRecord]) -> None:
        self._factory = factory

    def __call__(self, *args: Any, **kwargs: Any) -> logging.LogRecord:
        record = self._factory(*args, **kwargs)
        identifier = request_id.get()
        if identifier is not None and not hasattr(record, "request_id"):
            record.request_id = identifier
        return record
