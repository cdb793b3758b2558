"""The comparison holds an applier that reads from Kafka as it holds one that reads the slot."""

import threading

from cdc.verify import Limits, verify
from tests.cdc_shop import Shop, Writer, admin
from tests.integration.test_cdc_kafka import role, shop
from tests.integration.test_cdc_stream import wait_for_stream

__all__ = ["role", "shop"]


def test_through_kafka_nothing_false_is_said_and_what_is_wrong_is_found(shop: Shop) -> None:
    stop = threading.Event()
    writer = Writer(shop.config.source_dsn, seed=9)

    def write() -> None:
        while not stop.wait(0.005):
            writer.step()

    with shop.running():
        wait_for_stream(shop)
        thread = threading.Thread(target=write)
        thread.start()
        try:
            reports = [verify(shop.config, limits=Limits(chunk=(20, 60))) for _ in range(3)]
            with admin(shop.config.target_dsn) as target:
                target.execute("UPDATE category SET title = 'wrong' WHERE category_id = 5")
            spoilt = verify(shop.config, limits=Limits(chunk=(20, 60)))
        finally:
            stop.set()
            thread.join()
            writer.close()
        with admin(shop.config.target_dsn) as target:  # idle: nothing but heartbeats moves the position
            target.execute("UPDATE category SET title = 'category 5' WHERE category_id = 5")
        idle = verify(shop.config)
    assert all(report.equal for report in reports), reports
    assert [(each.key["category_id"], each.column) for each in spoilt.tables["category"].differences] == [
        ("5", "title")
    ]
    assert idle.equal
    held = [report.applier_held_ms for report in (*reports, spoilt, idle)]
    assert max(held) < 10_000, held
