"""The shell round the checks: opens the sessions, asks the queries, hands the rows to the judges.

Sessions are read-only and every statement is bounded by a timeout. A query that fails makes its rule
UNKNOWN, with the server's reason; the other checks go on.
"""

from collections.abc import Collection
from contextlib import ExitStack, suppress
from dataclasses import dataclass, replace
from typing import Any

import psycopg
from psycopg.rows import dict_row

from cdc.connect import Connect, ConnectError
from cdc.doctor.check import AskedBy, Check, Facts, Rows, Subject, TableCheck
from cdc.doctor.kafka import KAFKA_RULES, ConnectFacts, judge_connect
from cdc.doctor.mapped import MAPPED_RULES
from cdc.doctor.registry import CHECKS, RULES, UNREACHABLE
from cdc.findings import Finding, Place, Rule, Side
from cdc.preflight import check_mapping
from cdc.seams import AwayError
from cdc.sessions import connect

_NAME = "strangler_cdc doctor"
_STATEMENT_TIMEOUT = "5s"
_LOCK_TIMEOUT = "1s"


@dataclass(frozen=True, slots=True)
class Addresses:
    """DSNs of the stream's role and of the owners of the tables. Without an owner's DSN, what the owner
    would be asked is asked as the stream's role. `connect`: the URL of Kafka Connect, where Debezium carries
    the changes.
    """

    source: str
    target: str
    source_owner: str | None = None
    target_owner: str | None = None
    connect: str | None = None

    def of(self, side: Side, asked_by: AskedBy) -> str:
        """The DSN for questions to `side` by `asked_by`. Raises _NoOwnerError."""
        stream, owner = (
            (self.source, self.source_owner) if side is Side.SOURCE else (self.target, self.target_owner)
        )
        if asked_by is AskedBy.OWNER_ALONE and owner is None:
            raise _NoOwnerError
        return stream if asked_by is AskedBy.STREAM or owner is None else owner


class UnknownRuleError(Exception):
    """There is no rule of that name."""


class _NoOwnerError(Exception):
    """Only the owner of the tables could answer, and his address is not known."""


class _NotReachedError(Exception):
    """The session that a question needs could not be opened; said once, by UNREACHABLE."""


class _Sessions:
    """One read-only session for each DSN, opened when first asked for."""

    def __init__(self, addresses: Addresses, stack: ExitStack) -> None:
        self._addresses = addresses
        self._stack = stack
        self._open: dict[str, psycopg.Connection[Any] | Finding] = {}

    def of(self, side: Side, asked_by: AskedBy = AskedBy.STREAM) -> psycopg.Connection[Any]:
        """The session. Raises _NotReachedError."""
        dsn = self._addresses.of(side, asked_by)
        if dsn not in self._open:
            self._open[dsn] = self._connect(dsn, side, asked_by)
        found = self._open[dsn]
        if isinstance(found, Finding):
            raise _NotReachedError
        return found

    def failures(self) -> list[Finding]:
        """One finding for each session that could not be opened."""
        return [each for each in self._open.values() if isinstance(each, Finding)]

    def _connect(self, dsn: str, side: Side, asked_by: AskedBy) -> psycopg.Connection[Any] | Finding:
        try:
            return self._stack.enter_context(
                connect(
                    dsn,
                    name=_NAME,
                    statement_timeout=_STATEMENT_TIMEOUT,
                    lock_timeout=_LOCK_TIMEOUT,
                    default_transaction_read_only="on",
                )
            )
        except psycopg.OperationalError as error:
            whose = "the stream's role" if asked_by is AskedBy.STREAM else "the owner of its tables"
            return UNREACHABLE.unknown(
                f"the {side} database cannot be reached as {whose}, nothing was checked there: {_last(error)}",
                place=Place(side),
                remedy=UNREACHABLE.repair,
            )


def examine(
    subject: Subject, addresses: Addresses, *, only: Collection[str] = (), before_prepare: bool = False
) -> list[Finding]:
    """All findings; with `only`, those of the rules named. `before_prepare` leaves out what stage `prepare`
    puts right by itself. Empty means: everything was checked and is well.

    A database that cannot be reached, or a query that fails, is a finding of severity UNKNOWN. Raises
    UnknownRuleError.
    """
    known = {rule.id for rule in RULES}
    for name in only:
        if name not in known:
            raise UnknownRuleError(f"there is no rule {name!r}; docs/reference/doctor.md lists them")
    findings: list[Finding] = []
    with ExitStack() as stack:
        sessions = _Sessions(addresses, stack)
        for check in CHECKS:
            if (only and check.rule.id not in only) or (before_prepare and check.mended_by_prepare):
                continue
            if isinstance(check, Check):
                findings += _run(check, subject, sessions)
            else:
                findings += _run_by_table(check, subject, sessions)
        if addresses.connect is not None and (not only or any(rule.id in only for rule in KAFKA_RULES)):
            asked = judge_connect(_connect_facts(addresses.connect))
            findings += [finding for finding in asked if not only or finding.rule in only]
        if not only or any(rule.id in only for rule in MAPPED_RULES):
            mapped = _mapping(subject, addresses, sessions)
            findings += [finding for finding in mapped if not only or finding.rule in only]
        return [_located(finding, sessions) for finding in [*sessions.failures(), *findings]]


def _run(check: Check, subject: Subject, sessions: _Sessions) -> list[Finding]:
    rows: dict[Side, Rows] = {}
    for side, query in ((Side.SOURCE, check.source), (Side.TARGET, check.target)):
        if not query:
            continue
        try:
            rows[side] = _ask(sessions.of(side, check.asked_by), query, subject.parameters(side))
        except _NotReachedError:
            return []
        except _NoOwnerError:
            message = f"could not be checked: the address of the {side}'s owner is not set"
            remedy = "set the variable that owner_dsn_env of the plan names"
            return [check.rule.unknown(message, place=Place(side), remedy=remedy)]
        except psycopg.errors.UndefinedTable as error:
            if not check.none_when_absent:
                return [_unknown(check.rule, side, error)]
        except psycopg.Error as error:
            return [_unknown(check.rule, side, error)]
    return list(check.judge(Facts(rows.get(Side.SOURCE, ()), rows.get(Side.TARGET, ())), subject))


def _run_by_table(check: TableCheck, subject: Subject, sessions: _Sessions) -> list[Finding]:
    facts: Rows = ()
    findings: list[Finding] = []
    side = check.facts_in
    try:
        if side is not None:
            facts = _ask(sessions.of(side, check.asked_by), check.facts, subject.parameters(side))
    except _NotReachedError:
        return []
    except psycopg.errors.UndefinedTable as error:
        if not check.none_when_absent:
            return [_unknown(check.rule, side, error)]
    except psycopg.Error as error:
        return [_unknown(check.rule, side, error)]
    for table in subject.mapping.tables:
        question = check.question(table, facts, subject)
        if not question:
            continue
        try:
            rows = _ask(sessions.of(check.asks, AskedBy.OWNER), question, None)
        except _NotReachedError:
            return findings
        except psycopg.errors.UndefinedTable:
            continue  # the mapping's own rules say that it is missing
        except psycopg.Error as error:
            name = table.source if check.asks is Side.SOURCE else table.target
            unknown = _unknown(check.rule, check.asks, error, f" for {name}")
            findings.append(replace(unknown, place=Place.of(check.asks, name), path=table.path))
            continue
        findings += check.judge(table, facts, rows, subject)
    return findings


def _mapping(subject: Subject, addresses: Addresses, sessions: _Sessions) -> list[Finding]:
    """The mapping against both databases, rows read as the source's owner. The expressions are tried in a
    temporary table of a transaction that is rolled back: that session of the target cannot be read-only.
    """
    source, target = None, None
    with ExitStack() as stack:
        with suppress(_NotReachedError):  # told by `failures`
            source = sessions.of(Side.SOURCE, AskedBy.OWNER)
        with suppress(_NotReachedError):
            sessions.of(Side.TARGET)
            target = stack.enter_context(
                connect(
                    addresses.target,
                    name=_NAME,
                    statement_timeout=_STATEMENT_TIMEOUT,
                    lock_timeout=_LOCK_TIMEOUT,
                    default_transaction_read_only="off",
                )
            )
        findings: list[Finding] = []
        try:
            findings += check_mapping(subject.mapping, source, target)
        except psycopg.Error as error:
            unknown = _unknown(UNREACHABLE, None, error, " whether the mapping fits the tables")
            return [*findings, unknown]
        return findings


def _connect_facts(url: str) -> ConnectFacts:
    with Connect(url) as worker:
        try:
            return ConnectFacts(url, worker.has_debezium())
        except (ConnectError, AwayError) as error:
            return ConnectFacts(url, fault=str(error))


def _ask(connection: psycopg.Connection[Any], query: str, parameters: dict[str, Any] | None) -> Rows:
    with connection.cursor(row_factory=dict_row) as cursor:
        return cursor.execute(query.encode(), parameters).fetchall()


def _unknown(rule: Rule, side: Side | None, error: psycopg.Error, where: str = "") -> Finding:
    return rule.unknown(
        f"could not be checked{where}: {error.diag.message_primary or _last(error)}",
        place=Place(side),
        remedy="give the role that asks the right, or look yourself: " + rule.finds,
    )


def _last(error: Exception) -> str:
    lines = str(error).strip().splitlines()
    return lines[-1] if lines else type(error).__name__


def _located(finding: Finding, sessions: _Sessions) -> Finding:
    place = finding.place
    if place.side is None or place.database:
        return finding
    try:
        database = sessions.of(place.side).info.dbname
    except _NotReachedError:
        return finding
    return replace(finding, place=replace(place, database=database))
