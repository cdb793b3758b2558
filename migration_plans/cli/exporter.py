"""`strangler exporter`: a plan's migration for Prometheus."""

import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import click

from chassis import logs
from migration_plans.cli.exits import InTheWayError
from migration_plans.cli.session import Session, with_session
from migration_plans.cli.status import report
from migration_plans.exposition import CONTENT_TYPE, exposition
from migration_plans.ledger import LedgerUnreachableError


@click.command()
@with_session
@click.option("--port", type=click.IntRange(1, 65535), default=8011, show_default=True)
@click.option("--host", default="127.0.0.1", show_default=True)
def exporter(*, session: Session, port: int, host: str) -> None:
    """Serve PLAN's state, stage, percentage, gates and lag at /metrics, until SIGTERM. /health says that it lives.

    \b
    Example:
      strangler exporter catalog --port 8011
    """
    logs.configure("exporter")
    one_at_a_time = threading.Lock()

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            match self.path:
                case "/metrics":
                    try:
                        with one_at_a_time:
                            self._answer(200, CONTENT_TYPE, exposition(report(session)))
                    except LedgerUnreachableError as error:
                        self._answer(503, "text/plain; charset=utf-8", f"{error}\n".encode())
                case "/health":
                    self._answer(200, "text/plain; charset=utf-8", b"ok\n")
                case _:
                    self._answer(404, "text/plain; charset=utf-8", b"ask for /metrics or /health\n")

        def _answer(self, status: int, content_type: str, body: bytes) -> None:
            self.send_response(status)
            self.send_header("Content-Type", content_type)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *_: object) -> None:
            """A scrape every few seconds is no news."""

    try:
        server = ThreadingHTTPServer((host, port), Handler)
    except OSError as error:
        raise InTheWayError(
            f"{host}:{port} cannot be listened on: {error.strerror}; choose another --port"
        ) from error
    with server:
        server.serve_forever()
