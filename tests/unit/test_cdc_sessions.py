"""Which failures of a session pass, and which need a person."""

import psycopg
import pytest
from psycopg import pq

from cdc.sessions import failure
from cdc.sinks.plans import passes


class Result:
    """A result of the libpq layer that says an error."""

    def __init__(self, sqlstate: bytes | None) -> None:
        self._sqlstate = sqlstate
        self.status = pq.ExecStatus.FATAL_ERROR

    def error_field(self, field: pq.DiagnosticField) -> bytes | None:
        return self._sqlstate if field == pq.DiagnosticField.SQLSTATE else None

    def get_error_message(self, encoding: str = "utf-8") -> str:
        return "server closed the connection unexpectedly"


@pytest.mark.parametrize(
    ("sqlstate", "kind"),
    [
        (None, psycopg.OperationalError),  # libpq's own words
        (b"57P01", psycopg.errors.AdminShutdown),
        (b"22012", psycopg.errors.DivisionByZero),
    ],
)
def test_a_lost_connection_passes(sqlstate: bytes | None, kind: type[psycopg.Error]) -> None:
    error = failure(Result(sqlstate))  # type: ignore[arg-type]  # only these two are looked at
    assert type(error) is kind
    assert passes(error) == issubclass(kind, psycopg.OperationalError)
    assert "server closed the connection" in str(error)
