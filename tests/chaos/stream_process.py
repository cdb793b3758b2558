"""The change stream as a process of its own, and the random writer beside it."""

import os
import signal
import subprocess
import sys
import threading
from pathlib import Path

import psycopg

from cdc.connect import KafkaSettings
from tests.cdc_shop import MAPPING, Writer
from tests.chaos.pair import Pair


class StreamProcess:
    """`python -m cdc` over the relays, or through Kafka. What it says is kept over restarts."""

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
        self._command = [
            *(sys.executable, "-m", "cdc", str(mapping)),
            *("--slot", slot, "--publication", publication),
        ]
        if kafka is not None:
            program = "tests.chaos.run_kafka_stream"
            self._command = [sys.executable, "-m", program, str(mapping), slot, publication]
        self._environment = {
            **os.environ,
            "CDC_SOURCE_DSN": pair.source_cut.dsn(database),
            "CDC_TARGET_DSN": pair.target_cut.dsn(database),
        }
        if kafka is not None:
            self._environment |= {"KAFKA_BOOTSTRAP": kafka.bootstrap, "KAFKA_CONNECT": kafka.connect}
        self._log = directory / "stream.log"
        self._process: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        """Start it; return at once."""
        with self._log.open("ab") as log:
            self._process = subprocess.Popen(self._command, env=self._environment, stderr=log, stdout=log)

    def send(self, how: signal.Signals) -> None:
        """Send a signal."""
        assert self._process is not None
        self._process.send_signal(how)

    def ended(self) -> int | None:
        """Its exit code, None while it runs."""
        assert self._process is not None
        return self._process.poll()

    def wait(self, seconds: float = 30.0) -> int:
        """Its exit code. Raises subprocess.TimeoutExpired."""
        assert self._process is not None
        return self._process.wait(seconds)

    def kill(self) -> None:
        """SIGKILL, if it runs."""
        if self._process is not None and self._process.poll() is None:
            self._process.kill()
            self._process.wait()

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
