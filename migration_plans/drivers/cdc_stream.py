"""The real change stream: package `cdc`, given the names and connections of a plan."""

import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import psycopg

from cdc.findings import Finding
from cdc.meter import Phase
from cdc.pipeline import StreamConfig, StreamError
from cdc.preflight import check as preflight
from cdc.prepare import PrepareError, prepare, teardown
from cdc.sessions import connect
from cdc.status import CdcStatus, read_status
from cdc.verify import Difference, VerifyError, VerifyProgress, VerifyReport, verify
from migration_plans.drivers.change_stream import (
    ChangeStreamError,
    Comparison,
    PreflightRefusedError,
    Progress,
)
from migration_plans.gates import StreamSignal
from migration_plans.plan import Plan, variable


@dataclass(slots=True)
class CdcStream:
    """The change stream of `plan`. Connections are named by environment variables, read when needed.

    One connection is kept for `status`, which is asked for several times a second; `close` ends it.
    """

    plan: Plan
    _status: psycopg.Connection[Any] | None = None

    def close(self) -> None:
        """Close the connection kept for `status`."""
        if self._status is not None:
            self._status.close()
            self._status = None

    def config(self) -> StreamConfig:
        """What `cdc.pipeline.run` wants. Raises MissingVariableError."""
        return StreamConfig(
            slot=self.plan.stream.slot,
            publication=self.plan.stream.publication,
            mapping=self.plan.mapping,
            source_dsn=self._source,
            target_dsn=self._target,
        )

    def check(self) -> list[dict[str, Any]]:
        """Ask both databases whether the mapping works: severity, place in the plan and text of each
        finding.
        """
        with _reachable("the databases"):
            findings = preflight(self.plan.mapping, self._source, self._target)
        return [self._finding(finding) for finding in findings]

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
                self.close()
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
        )

    def compare(self, progress: Progress | None = None, stop: threading.Event | None = None) -> Comparison:
        """Compare both sides at one position while writes go on. Raises ChangeStreamError, also when `stop` is set."""

        def told(seen: VerifyProgress) -> None:
            if progress is not None:
                progress(seen.table, seen.tables_done, seen.tables, seen.rows)

        with _reachable("the databases"):
            report = verify(self.config(), on_progress=told, stop=stop)
        return _comparison(report)

    def teardown(self) -> None:
        """Remove slot, publication and schema. Raises ChangeStreamError, also while the stream still runs."""
        with _reachable("the databases"):
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
    def _source(self) -> str:
        return variable(self.plan.source.dsn_env, what="the change stream's source")

    @property
    def _target(self) -> str:
        return variable(self.plan.target.dsn_env, what="the change stream's target")

    def _finding(self, finding: Finding) -> dict[str, Any]:
        problem = self.plan.problem(finding.path, finding.message, finding.remedy)
        return {
            "severity": finding.severity.value,
            **problem.as_dict(),
            "text": f"{finding.severity.value}: {problem}",
        }


def _comparison(report: VerifyReport) -> Comparison:
    tables = {
        name: {
            "rows": table.rows,
            "differing": table.differing,
            "complete": table.complete,
            "differences": [_difference(each) for each in table.differences],
        }
        for name, table in report.tables.items()
    }
    detail = {
        "position": str(report.position),
        "tables": tables,
        "applier_held_ms": round(report.applier_held_ms, 3),
        "seconds": round(report.seconds, 3),
    }
    return Comparison(str(report.position), report.rows, report.differing, detail)


def _difference(each: Difference) -> dict[str, Any]:
    key = ", ".join(f"{name}={value}" for name, value in each.key.items())
    text = f"{key} is {each.kind.value}"
    if each.column:
        text = f"{key}, column {each.column}: {each.source!r} in the source, {each.target!r} in the target"
    return {
        "key": dict(each.key),
        "kind": each.kind.value,
        "column": each.column,
        "source": each.source,
        "target": each.target,
        "text": text,
    }


@contextmanager
def _reachable(what: str) -> Iterator[None]:
    try:
        yield
    except psycopg.Error as error:
        first = str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__
        raise ChangeStreamError(f"{what} of the change stream: {first}") from error
    except (StreamError, VerifyError) as error:
        raise ChangeStreamError(str(error)) from error
