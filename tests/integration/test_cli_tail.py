"""`strangler cdc tail` on a real source: Debezium's envelopes, and nothing left behind."""

import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

from migration_plans import examples
from tests import cdc_shop

STRANGLER = Path(sys.executable).with_name("strangler")


def test_changes_are_printed_as_envelopes_and_no_slot_is_left(
    tmp_path: Path, make_database: Callable[[], str]
) -> None:
    source_dsn, target_dsn = make_database(), make_database()
    examples.write(tmp_path, plan=examples.PLAN, routes=examples.ROUTES)
    environment = os.environ | {
        "SHOP_CDC_DSN": source_dsn,
        "CATALOG_CDC_DSN": target_dsn,
        "STRANGLER_LEDGER_DSN": make_database(),
    }
    printed, said = tmp_path / "printed", tmp_path / "said"
    with cdc_shop.admin(source_dsn) as source, printed.open("wb") as out, said.open("wb") as err:
        source.execute("CREATE TABLE product (id bigint PRIMARY KEY, name text NOT NULL)")
        source.execute("INSERT INTO product VALUES (1, 'before')")
        source.execute("CREATE PUBLICATION strangler_catalog FOR TABLE product")
        command = [str(STRANGLER), "cdc", "tail", "plan.yaml", "--schemas", "--limit", "2"]
        with subprocess.Popen(command, env=environment, cwd=tmp_path, stdout=out, stderr=err) as tail:
            cdc_shop.until(lambda: b"watching product" in said.read_bytes() or tail.poll() is not None)
            source.execute("UPDATE product SET name = 'watched'")
            source.execute("UPDATE product SET id = 2")
            assert tail.wait(30) == 0, said.read_text(encoding="utf-8")
        slots = "SELECT count(*) FROM pg_replication_slots WHERE database = current_database()"
        cdc_shop.until(lambda: source.execute(slots).fetchone() == (0,))
    records = [json.loads(line) for line in printed.read_text(encoding="utf-8").splitlines()]
    values = [each["value"] and each["value"]["payload"] for each in records]
    kinds = [value and (value.get("status") or value["op"]) for value in values]
    assert kinds == ["BEGIN", "u", "END", "BEGIN", "d", None, "c", "END"]
    assert records[1]["topic"] == "strangler_catalog.public.product"
    assert values[1]["after"] == {"id": 1, "name": "watched"}
    rows = records[1]["value"]["schema"]["fields"][1]["fields"]
    assert [(each["field"], each["type"], each["optional"]) for each in rows] == [
        ("id", "int64", False),
        ("name", "string", False),
    ]
    assert records[4]["key"]["payload"] == {"id": 1}
    assert records[4]["headers"]["__debezium.newkey"]["payload"] == {"id": 2}
