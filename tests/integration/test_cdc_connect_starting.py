"""A Connect worker that has opened its port and is not ready yet: no refusal, and no proof that a connector is gone."""

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest

from cdc.connect import Connect, ConnectError, ConnectUnreachableError

Answer = tuple[int, bytes]

NOT_LOADED: Answer = (404, b"")
LOADING: Answer = (503, b'{"error_code":503,"message":"Worker is starting up"}')
NONE_OF_THIS_NAME: Answer = (404, b'{"error_code":404,"message":"Connector c not found"}')
REBALANCE = b"Request cannot be completed because a rebalance is expected"
REBALANCES: Answer = (409, b'{"error_code":409,"message":"%s"}' % REBALANCE)
REBALANCES_TOO: Answer = (500, b'{"error_code":500,"message":"%s"}' % REBALANCE)
REFUSED: Answer = (400, b'{"error_code":400,"message":"no such setting"}')


@contextmanager
def worker(*answers: Answer) -> Iterator[str]:
    """Gives these answers one after the other, the last one for ever."""
    left = list(answers)

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            status, body = left.pop(0) if len(left) > 1 else left[0]
            self.send_response(status)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *_: object) -> None:
            """Say nothing."""

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_port}"
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


def test_a_worker_that_starts_is_asked_again_until_it_knows() -> None:
    with (
        worker(NOT_LOADED, LOADING, REBALANCES, REBALANCES_TOO, NONE_OF_THIS_NAME) as url,
        Connect(url) as door,
    ):
        assert door.status("c") is None


@pytest.mark.parametrize("answer", [REBALANCES, REBALANCES_TOO], ids=["409", "500"])
def test_workers_that_share_out_for_too_long_are_away(answer: Answer) -> None:
    with (
        worker(answer) as url,
        Connect(url, seconds=0.3) as door,
        pytest.raises(ConnectUnreachableError, match="share their work out anew"),
    ):
        door.status("c")


@pytest.mark.parametrize("answer", [NOT_LOADED, LOADING], ids=["nothing loaded", "loading"])
def test_a_worker_that_starts_for_too_long_is_away(answer: Answer) -> None:
    with (
        worker(answer) as url,
        Connect(url, seconds=0.3) as door,
        pytest.raises(ConnectUnreachableError, match="still starting"),
    ):
        door.status("c")


def test_what_connect_itself_refuses_is_an_error_at_once() -> None:
    with (
        worker(REFUSED) as url,
        Connect(url) as door,
        pytest.raises(ConnectError, match="answered 400: no such setting"),
    ):
        door.status("c")
