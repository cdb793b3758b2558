"""`strangler doctor` as a person runs it: words, JSON, exit codes; and where Debezium carries the changes."""

import json
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import psycopg
import pytest

from migration_plans import cli, examples

DEBEZIUM = {"class": "io.debezium.connector.postgresql.PostgresConnector", "version": "3.6.3.Final"}


@pytest.fixture
def databases(
    tmp_path: Path, make_database: Callable[[], str], monkeypatch: pytest.MonkeyPatch
) -> tuple[str, str]:
    """A source and a target that suit the example plan, which lies in the working directory."""
    source, target = make_database(), make_database()
    with psycopg.connect(source) as connection:
        connection.execute("CREATE TABLE product (id bigint PRIMARY KEY, name text NOT NULL)")
        # the session's server belongs to a superuser; an application's tables should not
        connection.execute(
            "DO $$ BEGIN CREATE ROLE doctor_plain; EXCEPTION WHEN duplicate_object THEN END $$"
        )
        connection.execute("ALTER TABLE product OWNER TO doctor_plain")
    with psycopg.connect(target) as connection:
        connection.execute("CREATE TABLE item (item_id bigint PRIMARY KEY, title text NOT NULL)")
    _plan(tmp_path, "role: postgres")
    monkeypatch.chdir(tmp_path)
    for name in ("SHOP_CDC_DSN", "SHOP_DATABASE_URL"):
        monkeypatch.setenv(name, source)
    for name in ("CATALOG_CDC_DSN", "CATALOG_DATABASE_URL"):
        monkeypatch.setenv(name, target)
    monkeypatch.delenv("STRANGLER_LEDGER_DSN", raising=False)
    return source, target


def _plan(directory: Path, more: str) -> None:
    old = "publication: strangler_catalog"
    assert old in examples.PLAN
    examples.write(directory, plan=examples.PLAN.replace(old, f"{old}, {more}"), routes=examples.ROUTES)


def _doctor(*options: str) -> int:
    with pytest.raises(SystemExit) as left:
        cli.main(["doctor", "plan.yaml", *options])
    return int(left.value.code or 0)


def test_it_says_what_where_why_and_which_statement_repairs_it(
    databases: tuple[str, str], capsys: pytest.CaptureFixture[str]
) -> None:
    assert _doctor() == 0
    assert "0 blockers, 0 warnings, 0 not checked" in capsys.readouterr().out
    source, _ = databases
    with psycopg.connect(source) as connection:
        connection.execute("ALTER TABLE product SET UNLOGGED")
    assert _doctor() == 4
    told = capsys.readouterr()
    assert "plan.yaml:" in told.out
    assert "[source-unlogged]" in told.out
    assert ".public.product" in told.out
    assert "why:   its changes are not in the log" in told.out
    assert 'SQL:   ALTER TABLE "public"."product" SET LOGGED;' in told.out
    assert "1 blockers" in told.err
    assert _doctor("--only", "wal-level") == 0
    capsys.readouterr()


def test_json_has_every_part_of_a_finding(
    databases: tuple[str, str], capsys: pytest.CaptureFixture[str]
) -> None:
    source, _ = databases
    with psycopg.connect(source) as connection:
        connection.execute("ALTER TABLE product SET UNLOGGED")
    assert _doctor("--json") == 4
    body = json.loads(capsys.readouterr().out)
    (finding,) = body["findings"]
    assert (body["blockers"], body["warnings"], body["not_checked"]) == (1, 0, 0)
    assert (finding["id"], finding["severity"]) == ("source-unlogged", "error")
    place = finding["place"]
    assert (place["side"], place["schema"], place["table"], place["column"]) == (
        "source",
        "public",
        "product",
        "",
    )
    assert place["database"] in source
    assert finding["repair"] == 'ALTER TABLE "public"."product" SET LOGGED'
    assert finding["line"] > 0


def test_what_could_not_be_checked_is_no_pass(
    databases: tuple[str, str], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    for name in ("SHOP_CDC_DSN", "SHOP_DATABASE_URL"):
        monkeypatch.setenv(name, "postgresql://nobody@127.0.0.1:1/none")
    assert _doctor() == 6
    assert "not known to be well" in capsys.readouterr().err
    assert _doctor("--only", "no-such-rule") == 2
    assert "no-such-rule" in capsys.readouterr().err


@contextmanager
def _connect_worker(plugins: list[dict[str, str]]) -> Iterator[str]:
    """Something that speaks as much of Kafka Connect's REST API as the doctor asks for."""

    class Answer(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            body = json.dumps(plugins if self.path == "/connector-plugins" else {}).encode()
            self.send_response(200)
            self.send_header("Content-Type", "application/json")
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_request(self, code: object = "-", size: object = "-") -> None:
            """Say nothing."""

    with ThreadingHTTPServer(("127.0.0.1", 0), Answer) as server:
        thread = threading.Thread(target=server.serve_forever, args=(0.05,))
        thread.start()
        try:
            yield f"http://127.0.0.1:{server.server_address[1]}"
        finally:
            server.shutdown()
            thread.join()


@pytest.mark.usefixtures("databases")
def test_connect_must_answer_and_know_debezium(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    kafka = "{bootstrap_env: KAFKA, connect_env: CONNECT, topic: changes}"
    _plan(tmp_path, f"role: postgres, source: kafka, kafka: {kafka}")
    monkeypatch.setenv("KAFKA", "127.0.0.1:1")
    only = ("--only", "connect-unreachable", "--only", "connect-lacks-debezium")
    with _connect_worker([DEBEZIUM]) as url:
        monkeypatch.setenv("CONNECT", url)
        assert _doctor(*only) == 0
    assert _doctor(*only) == 6
    assert "[connect-unreachable]" in capsys.readouterr().out
    with _connect_worker([{"class": "other", "version": "1"}]) as url:
        monkeypatch.setenv("CONNECT", url)
        assert _doctor(*only) == 4
    assert "[connect-lacks-debezium]" in capsys.readouterr().out
