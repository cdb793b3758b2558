"""The change stream as a process of its own, and the random writer beside it."""

import contextlib
import os
import signal
import threading
from pathlib import Path

import psycopg

from cdc.connect import KafkaSettings
from tests.cdc_shop import MAPPING, Writer
from tests.chaos.nursery import Order
from tests.chaos.pair import Pair


class StreamProcess:
    """What `python -m cdc` runs, over the relays, or the stream through Kafka. What it says is kept over restarts."""

    def __init__(
        self,
        pair: Pair,
        *,
        database: str,
        slot: str,
        publication: str,
        directory: Path,
        kafka: KafkaSettings | None = None,
    ) -> None:
        mapping = directory / "mapping.yaml"
        mapping.write_text(MAPPING)
        self._nursery = pair.nursery
        self._log = directory / "stream.log"
        self._pid: int | None = None
        arguments = [str(mapping), "--slot", slot, "--publication", publication]
        environment = {
            "CDC_SOURCE_DSN": pair.source_cut.dsn(database),
            "CDC_TARGET_DSN": pair.target_cut.dsn(database),
        }
        if kafka is not None:
            arguments = [str(mapping), slot, publication]
            environment |= {"KAFKA_BOOTSTRAP": kafka.bootstrap, "KAFKA_CONNECT": kafka.connect}
        self._order = Order(
            "cdc" if kafka is None else "kafka", tuple(arguments), environment, str(self._log)
        )

    def start(self) -> None:
        """Start it; return at once."""
        self._pid = self._nursery.start(self._order)

    def send(self, how: signal.Signals) -> None:
        """Send a signal."""
        assert self._pid is not None
        if self.ended() is None:
            os.kill(self._pid, how)

    def ended(self) -> int | None:
        """Its exit code, None while it runs."""
        assert self._pid is not None
        return self._nursery.ended(self._pid)

    def wait(self, seconds: float = 30.0) -> int:
        """Its exit code. Raises subprocess.TimeoutExpired."""
        assert self._pid is not None
        return self._nursery.wait(self._pid, seconds)

    def kill(self) -> None:
        """SIGKILL, if it runs."""
        if self._pid is not None and self.ended() is None:
            # one that ends in this moment stays the nursery's until it has told
            with contextlib.suppress(ProcessLookupError):
                os.kill(self._pid, signal.SIGKILL)
            self.wait()

    def log(self) -> str:
        """What it has said so far, in all its lives."""
        return self._log.read_text(errors="replace") if self._log.exists() else ""

    def last_words(self) -> str:
        """The last line that is not empty."""
        lines = [line for line in self.log().splitlines() if line.strip()]
        return lines[-1] if lines else ""


class SteadyWriter:
    """Random transactions on whatever is the source, in a thread, until `stop`; comes back when the source does."""

    def __init__(self, pair: Pair, *, database: str, seed: int) -> None:
        self._pair, self._database, self._seed = pair, database, seed
        self._stop = threading.Event()
        self._failed: list[BaseException] = []
        self.committed = 0
        self._thread = threading.Thread(target=self._work, name="writer")

    def start(self) -> None:
        """Begin to write."""
        self._thread.start()

    def stop(self) -> None:
        """Write no more. Raises what the writer did not expect."""
        self._stop.set()
        if self._thread.ident is not None:
            self._thread.join()
        if self._failed:
            raise self._failed[0]

    def _work(self) -> None:
        life = 0
        try:
            while not self._stop.is_set():
                life += 1  # another seed, or it would insert the same keys again
                self._live(self._seed % 1000 * 100 + life)
        except BaseException as error:
            self._failed.append(error)

    def _live(self, seed: int) -> None:
        writer = None
        try:
            writer = Writer(self._pair.source_dsn(self._database), seed)
            while not self._stop.wait(0.005):
                before = writer.committed
                writer.step()
                self.committed += writer.committed - before
        except psycopg.OperationalError:
            self._stop.wait(0.05)  # the source is away: that is what this is for
        finally:
            if writer is not None:
                writer.close()
