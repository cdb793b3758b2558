"""The change stream through Kafka as a process: a program (MAPPING SLOT PUBLICATION), or a fork of nursery.py.

The databases and the pair stand in CDC_SOURCE_DSN, CDC_TARGET_DSN, KAFKA_BOOTSTRAP and KAFKA_CONNECT, the number of
partitions in KAFKA_PARTITIONS, 1 unless set.
"""

import os
import signal
import sys
from pathlib import Path
from threading import Event

from cdc.connect import KafkaSettings
from cdc.pipeline import StreamConfig, run
from chassis import logs
from tests.cdc_shop import shop_mapping


def main(mapping: Path, slot: str, publication: str) -> None:
    """Run until SIGTERM."""
    stop = Event()
    signal.signal(signal.SIGTERM, lambda *_: stop.set())
    run(
        StreamConfig(
            slot=slot,
            publication=publication,
            mapping=shop_mapping(mapping.read_text()),
            source_dsn=os.environ["CDC_SOURCE_DSN"],
            target_dsn=os.environ["CDC_TARGET_DSN"],
            kafka=KafkaSettings(
                os.environ["KAFKA_BOOTSTRAP"],
                os.environ["KAFKA_CONNECT"],
                topic=slot,
                partitions=int(os.environ.get("KAFKA_PARTITIONS", "1")),
            ),
        ),
        stop,
    )


def program(arguments: list[str]) -> None:
    """`arguments`: MAPPING SLOT PUBLICATION."""
    logs.configure("cdc")
    main(Path(arguments[0]), arguments[1], arguments[2])


if __name__ == "__main__":
    program(sys.argv[1:])
