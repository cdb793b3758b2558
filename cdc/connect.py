"""Kafka Connect's REST API, as far as one Debezium connector needs it, and the connector's configuration.

A connector is one stream's: named like its slot, reading the publication and slot that `cdc.prepare` and the snapshot
made, writing *all* its records (rows, begins and ends of transactions, heartbeats) into one topic of one partition, so
that the topic is what the write-ahead log was: transactions in commit order (`cdc.sources.kafka` reads it).

REST: https://docs.confluent.io/platform/current/connect/references/restapi.html (Apache Kafka's own); connector:
https://debezium.io/documentation/reference/stable/connectors/postgresql.html#postgresql-connector-properties.
"""

import re
import time
from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum
from typing import Any, Final

import httpx
from psycopg.conninfo import conninfo_to_dict

from cdc.changes import Lsn, TableName
from cdc.connector_drift import refuse_spoiled
from cdc.seams import AwayError, StreamError

PASSWORD_VARIABLE: Final = "STRANGLER_CONNECT_PASSWORD"  # noqa: S105  # the variable's name in the worker's environment
_CLASS: Final = "io.debezium.connector.postgresql.PostgresConnector"
RECONNECT_MS: Final = 1_000
"""Longest pause of a Kafka client between two tries to reach a broker; kafka-python's own default is 30 s."""
_SECONDS = 15.0
LARGEST_RECORD: Final = 32 * 1024 * 1024
"""Bytes of a record, a row before and after the change as JSON, unless told; Kafka's own default is a megabyte."""


class ConnectError(StreamError):
    """Connect refused something, or has no connector of that name; the message says what and why."""


class ConnectUnreachableError(AwayError):
    """Nobody answers at Connect's address."""


class State(StrEnum):
    """What Connect says of a connector or a task (its own words, lower case)."""

    RUNNING = "running"
    FAILED = "failed"
    PAUSED = "paused"
    STOPPED = "stopped"
    UNASSIGNED = "unassigned"
    RESTARTING = "restarting"
    MISSING = "missing"


@dataclass(frozen=True, slots=True)
class TaskStatus:
    """One part of a connector: its state, where it runs, and of a failed one the first line of its trace."""

    state: State
    worker: str
    fault: str


@dataclass(frozen=True, slots=True)
class ConnectorStatus:
    """A connector and its tasks. It works only when all of them run: a failed task does not restart itself."""

    name: str
    connector: TaskStatus
    tasks: tuple[TaskStatus, ...]

    @property
    def running(self) -> bool:
        """Does everything run?"""
        return bool(self.tasks) and all(part.state is State.RUNNING for part in (self.connector, *self.tasks))

    @property
    def fault(self) -> str:
        """What the first failed part says; empty when none failed."""
        failed = [part for part in (self.connector, *self.tasks) if part.state is State.FAILED]
        return (failed[0].fault or "it failed without a word") if failed else ""


@dataclass(frozen=True, slots=True)
class KafkaSettings:
    """Where a stream's changes travel. `topic` has one partition for each of `partitions` (one: commit order).
    `max_record`: bytes of the largest record that the connector sends.
    """

    bootstrap: str
    connect: str
    topic: str
    partitions: int = 1
    max_record: int = LARGEST_RECORD


def connector_config(
    *,
    name: str,
    source_dsn: str,
    publication: str,
    keys: Mapping[TableName, tuple[str, ...]],
    topic: str,
    partitions: int = 1,
    max_record: int = LARGEST_RECORD,
    local_only: bool = False,
    more: Mapping[str, str] | None = None,
) -> dict[str, str]:
    """The connector's configuration. Pure. The password stands as the name of a variable of the worker: configurations
    lie in a topic that anybody on the broker can read. `local_only`: leave out what another stream wrote (origin).
    """
    info = conninfo_to_dict(source_dsn)
    listed = ",".join(_pattern(f"{table.schema}.{table.name}") for table in keys)
    # rows are named by the mapping's key, whatever the table's primary key is
    named = ";".join(
        f"{_pattern(f'{table.schema}.{table.name}')}:{','.join(key)}" for table, key in keys.items()
    )
    return {
        "connector.class": _CLASS,
        "tasks.max": "1",
        "database.hostname": str(info.get("host") or "127.0.0.1"),
        "database.port": str(info.get("port") or 5432),
        "database.user": str(info.get("user") or ""),
        "database.password": f"${{env:{PASSWORD_VARIABLE}}}",
        "database.dbname": str(info.get("dbname") or ""),
        "plugin.name": "pgoutput",
        "slot.name": name,
        "slot.drop.on.stop": "false",
        "publication.name": publication,
        "publication.autocreate.mode": "disabled",
        "table.include.list": listed,
        "message.key.columns": named,
        "snapshot.mode": "no_data",  # the snapshot is ours: it made the slot, so nothing is missing and nothing twice
        "topic.prefix": name,
        "decimal.handling.mode": "string",
        "time.precision.mode": "adaptive",
        "binary.handling.mode": "hex",
        "interval.handling.mode": "string",
        "hstore.handling.mode": "json",
        "include.unknown.datatypes": "true",  # or columns of such types are missing or NULL without a word
        "skipped.operations": "none",  # TRUNCATE is skipped unless told
        "tombstones.on.delete": "true",
        "provide.transaction.metadata": "true",
        "extended.headers.enabled": "false",  # four in every record that say which connector wrote it
        "poll.interval.ms": "10",  # half a second unless told: every change would wait for it
        "heartbeat.interval.ms": "250",
        # the log of other databases moves the slot only past a change of this one; it needs no table
        "heartbeat.action.query": "SELECT pg_logical_emit_message(true, 'strangler-heartbeat', '')",
        # a slot that was dropped and made anew begins after the stored offset: fail rather than leave a gap
        "offset.mismatch.strategy": "trust_offset",
        "slot.max.retries": "3",
        "slot.retry.delay.ms": "1000",
        "retriable.restart.connector.wait.ms": "1000",
        "errors.max.retries": "-1",
        "key.converter": "org.apache.kafka.connect.json.JsonConverter",
        "key.converter.schemas.enable": "false",
        "key.converter.replace.null.with.default": "false",
        "value.converter": "org.apache.kafka.connect.json.JsonConverter",
        "value.converter.schemas.enable": "false",
        # by default a NULL in a column that has a default is written as that default, and cannot be told from it
        "value.converter.replace.null.with.default": "false",
        "transforms": "one",
        "transforms.one.type": "org.apache.kafka.connect.transforms.RegexRouter",
        "transforms.one.regex": ".*",
        "transforms.one.replacement": topic,
        "topic.creation.enable": "true",
        "topic.creation.default.replication.factor": "-1",
        "topic.creation.default.partitions": str(partitions),
        "topic.creation.default.cleanup.policy": "delete",
        # by default a row of a megabyte would fail the task
        "topic.creation.default.max.message.bytes": str(max_record),
        "producer.override.max.request.size": str(max_record),
        "producer.override.buffer.memory": str(2 * max_record),
        **({"slot.stream.params": "origin=none"} if local_only else {}),
        **(more or {}),
    }


def _pattern(name: str) -> str:
    """A regular expression for exactly this name, as Debezium's lists want them."""
    return re.sub(r"([^\w])", r"\\\1", name)


def register(
    kafka: KafkaSettings, *, name: str, stream: Mapping[str, str], over_spoiled: bool = False
) -> None:
    """Make sure that the connector is there and configured like this; a failed one is restarted. Does not wait for it.
    `over_spoiled`: somebody vouches that nothing was written with another configuration.

    Raises ConnectError when Connect refuses the configuration, ConnectUnreachableError, StreamError when the one that
    runs has written what would be read wrongly (`cdc.connector_drift`).
    """
    with Connect(kafka.connect) as connect:
        known = connect.config(name)
        if known is not None and not over_spoiled:
            refuse_spoiled(known, stream, stream=name)
        if known is None or any(known.get(key) != value for key, value in stream.items()):
            connect.register(name, stream)
        status = connect.status(name)
        if status is not None and status.fault:
            connect.restart(name)


def forget(kafka: KafkaSettings, *, name: str) -> None:
    """Remove connector and topic: what a stream that begins anew must not find. Raises ConnectUnreachableError."""
    from kafka import KafkaAdminClient  # noqa: PLC0415  # costs nothing unless asked for
    from kafka.errors import KafkaError  # noqa: PLC0415  # as above

    with Connect(kafka.connect) as connect:
        connect.delete(name)
    admin = KafkaAdminClient(bootstrap_servers=kafka.bootstrap)
    try:
        if kafka.topic in admin.list_topics():
            admin.delete_topics([kafka.topic], timeout_ms=10_000)
        # an offset beyond the end of a new topic would look like records that are gone
        admin.delete_groups([name])
    except KafkaError as error:
        raise AwayError(f"Kafka at {kafka.bootstrap}: {error!r}") from error
    finally:
        admin.close()


class Connect:
    """Kafka Connect at `url`, which has `seconds` to answer. Close it, or use it as a context."""

    def __init__(self, url: str, *, seconds: float = _SECONDS) -> None:
        self.url = url.rstrip("/")
        self._seconds = seconds
        self._http = httpx.Client(base_url=self.url, timeout=seconds, trust_env=False)

    def close(self) -> None:
        """Close its connections."""
        self._http.close()

    def __enter__(self) -> "Connect":
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def has_debezium(self) -> str | None:
        """The version of the worker's Debezium for PostgreSQL, None when it has none."""
        found = self._ask("GET", "/connector-plugins").json()
        return next((plugin["version"] for plugin in found if plugin["class"] == _CLASS), None)

    def register(self, name: str, config: Mapping[str, str]) -> None:
        """Make or change the connector; the same again changes nothing. Raises ConnectError naming the settings that
        Connect or Debezium refuse.
        """
        checked = self._ask(
            "PUT", f"/connector-plugins/{_CLASS}/config/validate", {**config, "name": name}
        ).json()
        faults = [
            f"{value['name']}: {'; '.join(value['errors'])}"
            for value in (entry["value"] for entry in checked["configs"])
            if value["errors"]
        ]
        if faults:
            raise ConnectError(f"connector {name} is refused: {' | '.join(faults)}")
        self._ask("PUT", f"/connectors/{name}/config", dict(config))

    def status(self, name: str) -> ConnectorStatus | None:
        """How the connector is; None when there is none."""
        answer = self._ask("GET", f"/connectors/{name}/status", missing=True)
        if answer.status_code == 404:
            return None
        body = answer.json()
        return ConnectorStatus(name, _part(body["connector"]), tuple(_part(task) for task in body["tasks"]))

    def config(self, name: str) -> dict[str, str] | None:
        """Its configuration; None when there is none."""
        answer = self._ask("GET", f"/connectors/{name}/config", missing=True)
        return None if answer.status_code == 404 else dict(answer.json())

    def delivered(self, name: str) -> Lsn | None:
        """The end of the last commit of which Kafka has everything, by the connector's committed offset; None when it
        has committed none. Connect commits an offset once all records up to it are acknowledged.
        """
        for entry in self._ask("GET", f"/connectors/{name}/offsets").json()["offsets"]:
            committed = (entry["offset"] or {}).get("lsn_commit")
            if committed is not None:
                return Lsn(int(committed))
        return None

    def has_offset(self, name: str) -> bool:
        """Whether it has committed an offset of any kind. False when there is no such connector."""
        answer = self._ask("GET", f"/connectors/{name}/offsets", missing=True)
        return answer.status_code != 404 and any(entry["offset"] for entry in answer.json()["offsets"])

    def restart(self, name: str, *, only_failed: bool = True) -> None:
        """Restart the connector and its tasks, those that failed or all."""
        flags = f"includeTasks=true&onlyFailed={'true' if only_failed else 'false'}"
        self._ask("POST", f"/connectors/{name}/restart?{flags}")

    def pause(self, name: str) -> None:
        """Let it read nothing."""
        self._ask("PUT", f"/connectors/{name}/pause")

    def resume(self, name: str) -> None:
        """Let it go on."""
        self._ask("PUT", f"/connectors/{name}/resume")

    def delete(self, name: str) -> bool:
        """Remove it and what Connect remembers of its place in the log; was there one?"""
        if self.status(name) is None:
            return False
        self._ask("PUT", f"/connectors/{name}/stop")
        self._until(name, lambda status: status is None or status.connector.state is State.STOPPED)
        self._ask("DELETE", f"/connectors/{name}/offsets")
        self._ask("DELETE", f"/connectors/{name}")
        return True

    def wait_running(self, name: str, *, seconds: float = 60.0) -> ConnectorStatus:
        """Return when the connector and its task run. Raises ConnectError with the reason when one failed, or when they
        do not run in time.
        """
        status = self._until(
            name,
            lambda status: status is not None and (status.running or bool(status.fault)),
            seconds=seconds,
        )
        if status is None or not status.running:
            said = "it does not exist" if status is None else status.fault or "it does not run yet"
            raise ConnectError(f"connector {name} at {self.url}: {said}")
        return status

    def _until(self, name: str, reached: Any, *, seconds: float = 30.0) -> ConnectorStatus | None:
        deadline = time.monotonic() + seconds
        while not reached(status := self.status(name)) and time.monotonic() < deadline:
            time.sleep(0.1)
        return status

    def _ask(
        self, method: str, path: str, body: Mapping[str, str] | None = None, *, missing: bool = False
    ) -> httpx.Response:
        deadline = time.monotonic() + self._seconds
        while True:
            try:
                answer = self._http.request(method, path, json=body)
            except httpx.HTTPError as error:
                raise ConnectUnreachableError(
                    f"Kafka Connect does not answer at {self.url}: {str(error) or type(error).__name__}; "
                    "start it, or correct its address"
                ) from error
            if not _passes(answer) or time.monotonic() > deadline:
                break
            time.sleep(0.2)
        if answer.is_success or (missing and answer.status_code == 404 and not _starts(answer)):
            return answer
        if _starts(answer):
            raise ConnectUnreachableError(f"Kafka Connect at {self.url} is still starting; it is asked again")
        if _rebalances(answer):
            raise ConnectUnreachableError(
                f"the Kafka Connect workers at {self.url} share their work out anew; they are asked again"
            )
        raise ConnectError(f"{method} {self.url}{path} was answered {answer.status_code}: {_reason(answer)}")


def _passes(answer: httpx.Response) -> bool:
    """Whether the same question may be answered in a moment."""
    return answer.status_code == 409 or _rebalances(answer) or _starts(answer)


def _rebalances(answer: httpx.Response) -> bool:
    """Whether the workers share their work out anew: mostly told as 409, but as 500 where a worker asks itself."""
    return answer.status_code in (409, 500) and b"rebalance" in answer.content


def _starts(answer: httpx.Response) -> bool:
    """Whether a worker answers that has opened its port and is not ready: 404 without Connect's own words (it knows not
    even its plugins), later 503.
    """
    if answer.status_code == 404:
        try:
            said = answer.json()
        except ValueError:
            return True
        return not (isinstance(said, dict) and "error_code" in said)
    return answer.status_code == 503


def _reason(answer: httpx.Response) -> str:
    try:
        return str(answer.json().get("message", answer.text))[:500]
    except (ValueError, AttributeError):
        return answer.text[:500]


def _part(said: Mapping[str, Any]) -> TaskStatus:
    trace = str(said.get("trace", ""))
    # the first line names the wrapper, the last cause what happened
    causes = [line for line in trace.splitlines() if line.startswith("Caused by:")]
    fault = (causes[-1].removeprefix("Caused by:") if causes else trace.partition("\n")[0]).strip()
    known = str(said["state"]).lower()
    return TaskStatus(State(known), str(said.get("worker_id", "")), fault)
