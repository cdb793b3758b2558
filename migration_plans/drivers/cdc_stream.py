"""The real change stream: package `cdc`, given the names and connections of a plan."""

import os
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, replace
from typing import Any

import psycopg

from cdc.connect import KafkaSettings, forget
from cdc.doctor.check import Subject
from cdc.doctor.examine import Addresses, examine
from cdc.findings import Finding
from cdc.meter import Phase
from cdc.pipeline import StreamConfig, StreamError
from cdc.prepare import PrepareError, prepare, teardown
from cdc.release import read_parked, target_keys
from cdc.retention import read_retention
from cdc.seams import AwayError
from cdc.sessions import connect
from cdc.status import CdcStatus, read_status
from cdc.verify import Limits, VerifyError, VerifyProgress, verify
from migration_plans.drivers.change_stream import (
    PLAIN_WISH,
    ChangeStreamError,
    CompareWish,
    Comparison,
    PreflightRefusedError,
    Progress,
)
from migration_plans.drivers.comparison import comparison, progress_of
from migration_plans.gates import SlotSignal, StreamSignal
from migration_plans.plan import Plan, variable


@dataclass(slots=True)
class CdcStream:
    """The change stream of `plan`. Connections are named by environment variables, read when needed.

    A connection is kept for `status`, which is asked for several times a second, and one for `slot`; `close` ends
    them.
    """

    plan: Plan
    _status: psycopg.Connection[Any] | None = None
    _slot: psycopg.Connection[Any] | None = None

    def close(self) -> None:
        """Close the connections that are kept."""
        self._close_status()
        self._close_slot()

    def _close_status(self) -> None:
        if self._status is not None:
            self._status.close()
            self._status = None

    def _close_slot(self) -> None:
        if self._slot is not None:
            self._slot.close()
            self._slot = None

    def config(self) -> StreamConfig:
        """What `cdc.pipeline.run` wants. Raises MissingVariableError."""
        return StreamConfig(
            slot=self.plan.stream.slot,
            publication=self.plan.stream.publication,
            mapping=self.plan.mapping,
            source_dsn=self._source,
            target_dsn=self._target,
            on_refused=self.plan.stream.on_refused,
            max_parked=self.plan.stream.max_parked,
            embedded=self.plan.stream.embedded,
        )

    def running_config(self) -> StreamConfig:
        """The same, with where the changes travel. Raises MissingVariableError."""
        return replace(self.config(), kafka=self._kafka)

    def check(self) -> list[dict[str, Any]]:
        """Ask both databases what would be in the way of `prepare` and all that follows.

        Each finding has severity, id, place in the databases and in the plan, text, why and repair.
        """
        return self._examine(before_prepare=True)

    def examine(self, *, only: Sequence[str] = ()) -> list[dict[str, Any]]:
        """All that would be in the way, or what concerns the rules `only`; also what `prepare` would mend.

        As `check`. Raises UnknownRuleError, MissingVariableError.
        """
        return self._examine(only=only)

    def prepare(self) -> None:
        """Check, then make publication, grants and schema. Raises PreflightRefusedError, ChangeStreamError."""
        errors = [finding["text"] for finding in self.check() if finding["severity"] == "error"]
        if errors:
            raise PreflightRefusedError("; ".join(errors))
        try:
            with _reachable("the databases"):
                prepare(
                    self.plan.mapping,
                    source_owner_dsn=variable(self.plan.source.owner_dsn_env, what="the owner of the source"),
                    target_owner_dsn=variable(self.plan.target.owner_dsn_env, what="the owner of the target"),
                    cdc_role=self.plan.stream.role,
                    publication=self.plan.stream.publication,
                )
        except PrepareError as error:
            raise PreflightRefusedError(str(error)) from error

    def status(self) -> CdcStatus | None:
        """The stream's own status; None when there is none yet. Raises ChangeStreamError."""
        with _reachable("the target database"):
            try:
                if self._status is None:
                    self._status = connect(self._target, name="strangler_cdc status")
                return read_status(self._status, stream=self.plan.stream.slot)
            except psycopg.Error:
                self._close_status()
                raise

    def signal(self) -> StreamSignal | None:
        """The status as gates need it. `at` is now minus the age of the stream's heartbeat."""
        status = self.status()
        if status is None:
            return None
        stopped = status.phase in (Phase.STOPPED, Phase.FAILED)
        snapshot = status.snapshot
        return StreamSignal(
            at=time.time() - status.heartbeat_age,
            phase=status.phase.value,
            # while a comparison holds the applier, the stream is well
            streaming=status.phase in (Phase.STREAMING, Phase.HELD),
            lag_seconds=status.lag_seconds,
            lag_bytes=status.lag_bytes,
            problem=(status.error or "it was stopped; `strangler cdc run` goes on") if stopped else "",
            snapshot_rows=snapshot.rows if snapshot else 0,
            snapshot_total=snapshot.total if snapshot else 0,
            parked=status.parked,
        )

    def slot(self) -> SlotSignal:
        """What the source keeps for the stream's slot. Raises ChangeStreamError."""
        name = self.plan.stream.slot
        with _reachable("the source database"):
            try:
                if self._slot is None:
                    self._slot = connect(self._source, name="strangler_cdc slot")
                found = read_retention(self._slot, name)
            except psycopg.Error:
                self._close_slot()
                raise
        return SlotSignal(
            at=time.time(),
            name=name,
            exists=found.exists,
            active=found.active,
            retained=found.retained,
            status=found.status,
            safe=found.safe,
            keep_at_most=found.keep_at_most,
            disk_free=found.disk_free,
        )

    def compare(
        self,
        progress: Progress | None = None,
        stop: threading.Event | None = None,
        *,
        wish: CompareWish = PLAIN_WISH,
    ) -> Comparison:
        """Compare both sides at one position while writes go on. Raises ChangeStreamError, also when `stop` is set."""

        def told(seen: VerifyProgress) -> None:
            if progress is not None:
                progress(progress_of(seen, values=wish.values))

        with _reachable("the databases"):
            report = verify(
                self.config(),
                on_progress=told,
                stop=stop,
                tables=wish.tables,
                limits=Limits(rate=wish.rate),
                resume=not wish.fresh,
            )
            parked = read_parked(self._target, stream=self.plan.stream.slot)
        return comparison(report, target_keys(parked, self.plan.mapping), values=wish.values)

    def teardown(self) -> None:
        """Remove slot, publication and schema. Raises ChangeStreamError, also while the stream still runs."""
        kafka = self._kafka
        with _reachable("the databases"):
            if kafka is not None:
                forget(kafka, name=self.plan.stream.slot)
            teardown(
                self.plan.mapping,
                slot=self.plan.stream.slot,
                publication=self.plan.stream.publication,
                source_dsn=self._source,
                source_owner_dsn=variable(self.plan.source.owner_dsn_env, what="the owner of the source"),
                target_owner_dsn=variable(self.plan.target.owner_dsn_env, what="the owner of the target"),
                empty_target=True,
            )

    @property
    def _kafka(self) -> KafkaSettings | None:
        names = self.plan.stream.kafka
        if names is None:
            return None
        return KafkaSettings(
            variable(names.bootstrap_env, what="the brokers of Kafka"),
            variable(names.connect_env, what="Kafka Connect"),
            names.topic,
            partitions=names.partitions,
            max_record=names.max_record,
        )

    @property
    def _source(self) -> str:
        return variable(self.plan.source.dsn_env, what="the change stream's source")

    @property
    def _target(self) -> str:
        return variable(self.plan.target.dsn_env, what="the change stream's target")

    def _examine(self, *, only: Sequence[str] = (), before_prepare: bool = False) -> list[dict[str, Any]]:
        names, kafka = self.plan.stream, self._kafka
        subject = Subject(
            self.plan.mapping,
            names.slot,
            names.publication,
            names.role,
            debezium=names.embedded or kafka is not None,
        )
        addresses = Addresses(
            self._source,
            self._target,
            # who only checks a plan need not hold the owners' passwords
            os.environ.get(self.plan.source.owner_dsn_env) or None,
            os.environ.get(self.plan.target.owner_dsn_env) or None,
            kafka.connect if kafka is not None else None,
        )
        found = examine(subject, addresses, only=only, before_prepare=before_prepare)
        return [self._finding(finding) for finding in found]

    def _finding(self, finding: Finding) -> dict[str, Any]:
        problem = self.plan.problem(finding.path, finding.message, finding.remedy)
        return {
            "severity": finding.severity.value,
            "id": finding.rule,
            "where": str(finding.place),
            "place": asdict(finding.place),
            "why": finding.why,
            "repair": finding.repair,
            **problem.as_dict(),
            "text": f"{finding.severity.value}: {problem}",
        }


@contextmanager
def _reachable(what: str) -> Iterator[None]:
    try:
        yield
    except psycopg.Error as error:
        first = str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__
        raise ChangeStreamError(f"{what} of the change stream: {first}") from error
    except (AwayError, StreamError, VerifyError) as error:
        raise ChangeStreamError(str(error)) from error
