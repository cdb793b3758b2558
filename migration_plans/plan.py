"""The plan file: read whole, checked whole, every fault with its file, line and field.

`load_plan` reads YAML (chassis.yamlfile keeps the lines), lays overrides on top (a second file, or `--set
gates.soak=5s`), validates with pydantic, asks cdc.mapping for the tables, checks the order of the stages,
and returns a frozen `Plan`. Whatever is wrong is collected and raised at once as `InvalidFileError`.
`json_schema` publishes the same models for editors (docs/reference/plan.schema.json).
"""

import hashlib
import json
import os
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from decimal import Decimal
from itertools import pairwise
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import (
    AnyHttpUrl,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    TypeAdapter,
    ValidationError,
    WithJsonSchema,
    model_validator,
)

from cdc.connect import LARGEST_RECORD
from cdc.mapping import Mapping as TableMappings
from cdc.mapping import parse_mapping
from cdc.parked import OnRefused
from chassis.problems import InvalidFileError, Problem
from chassis.yamlfile import Places, load, parse
from migration_plans.gates import GatePolicy
from migration_plans.quantities import Duration, Share, Size
from migration_plans.rollback import Limits
from migration_plans.stages import Kind, Stage

_ORDER = {kind: place for place, kind in enumerate(Kind)}
_NAME = r"^[a-z][a-z0-9_]{0,40}$"


@dataclass(frozen=True, slots=True)
class Database:
    """One side: the change stream's connection and its owner's, by the environment variables that hold
    them.
    """

    dsn_env: str
    owner_dsn_env: str


@dataclass(frozen=True, slots=True)
class KafkaNames:
    """Where changes travel when Debezium carries them: the variables that hold the addresses, the topic, the bytes of
    the largest record.
    """

    bootstrap_env: str
    connect_env: str
    topic: str
    max_record: int
    partitions: int = 1


@dataclass(frozen=True, slots=True)
class Stream:
    """The change stream: its names in the databases, and what happens to a change that the target refuses. `kafka` is
    None when no broker is between; then it reads the write-ahead log itself, or Debezium's engine does (`embedded`).
    """

    slot: str
    publication: str
    role: str
    on_refused: OnRefused = OnRefused.STOP
    max_parked: int = 1_000
    kafka: KafkaNames | None = None
    embedded: bool = False


@dataclass(frozen=True, slots=True)
class RetryPolicy:
    """What happens after an automatic rollback: nothing, or after `after` seconds and good probes another
    try.
    """

    auto: bool = False
    after: float = 60.0
    max: int = 3
    probes: int = 5


@dataclass(frozen=True, slots=True)
class AlertTarget:
    """One place that alerts go to: exactly one of `log`, `webhook`, `webhook_env`, `command`."""

    log: bool = False
    webhook: str = ""
    webhook_env: str = ""
    command: tuple[str, ...] = ()

    @property
    def name(self) -> str:
        """How the delivery record calls it; never holds a secret address."""
        if self.log:
            return "log"
        if self.command:
            return f"command {self.command[0]}"
        return f"webhook ${self.webhook_env}" if self.webhook_env else "webhook"


@dataclass(frozen=True, slots=True)
class PlannedStage:
    """A stage with the limits of its gates."""

    stage: Stage
    policy: GatePolicy


@dataclass(frozen=True, slots=True)
class Plan:
    """A checked plan. `digest` names its content: the first 12 hex digits of the SHA-256 of file and
    overrides.
    """

    file: str
    name: str
    group: str
    routes: Path
    proxy_admin: str
    ledger_env: str
    source: Database
    target: Database
    stream: Stream
    mapping: TableMappings
    stages: tuple[PlannedStage, ...]
    limits: Limits
    retry: RetryPolicy
    alerts: tuple[AlertTarget, ...]
    digest: str
    places: Places

    @property
    def stage_names(self) -> tuple[str, ...]:
        """The stages in order, by name."""
        return tuple(planned.stage.name for planned in self.stages)

    def problem(self, path: Sequence[str | int], message: str, remedy: str = "") -> Problem:
        """A fault of the plan file at `path`, for those who check it against the world."""
        return self.places.problem(path, message, remedy)


class MissingVariableError(Exception):
    """An environment variable that a plan names is not set."""


def variable(name: str, *, what: str, environ: Mapping[str, str] | None = None) -> str:
    """The value of environment variable `name`. Raises MissingVariableError that says what it is for."""
    value = (os.environ if environ is None else environ).get(name, "")
    if not value:
        raise MissingVariableError(
            f"the environment variable {name} ({what}) is not set; export it, or `strangler up`"
        )
    return value


class _Strict(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


Name = Annotated[str, Field(pattern=_NAME)]
Variable = Annotated[str, Field(pattern=r"^[A-Z][A-Z0-9_]*$")]
Topic = Annotated[str, Field(pattern=r"^[A-Za-z0-9._-]{1,249}$")]


def _percent(value: object) -> Decimal:
    number = Decimal(str(value)) if isinstance(value, int | float) and not isinstance(value, bool) else None
    if number is None or not 0 < number <= 100 or number != round(number, 2):
        raise ValueError("a ramp is a percentage above 0 and up to 100, in steps of 0.01")
    return number


Percent = Annotated[
    Decimal,
    BeforeValidator(_percent),
    WithJsonSchema({"type": "number", "exclusiveMinimum": 0, "maximum": 100, "multipleOf": 0.01}),
]


class _Gates(_Strict):
    max_lag: Duration | None = Field(None, description="how far behind the change stream may be, in time")
    max_lag_bytes: Size | None = Field(
        None, description="how far behind the change stream may be, in log bytes"
    )
    min_requests: Annotated[int, Field(ge=0)] | None = Field(
        None, description="canary requests needed at a percentage"
    )
    soak: Duration | None = Field(None, description="how long a percentage stays before the next one")
    verify: bool | None = Field(None, description="compare both sides row by row before traffic moves")
    max_signal_age: Duration | None = Field(None, description="an older signal counts as missing")
    max_errors: Share | None = Field(
        None, description="share of failed canary requests above which a gate holds"
    )
    max_parked: Annotated[int, Field(ge=0)] | None = Field(
        None, description="parked keys with which a stage may still be passed"
    )
    max_retained: Size | None = Field(
        None, description="log that the source may keep for the slot before people are alarmed"
    )

    def over(self, base: GatePolicy) -> GatePolicy:
        given = {key: value for key, value in self if key in GatePolicy.__slots__ and value is not None}
        return replace(base, **given)


def _stage(value: object) -> object:
    return {"stage": value} if isinstance(value, str) else value


class _Stage(_Gates):
    stage: Literal["prepare", "snapshot", "stream"] | None = None
    ramp: Percent | None = Field(
        None, description="percentage of users whose safe requests go to the service"
    )

    @model_validator(mode="after")
    def _one_kind(self) -> "_Stage":
        if (self.stage is None) == (self.ramp is None):
            raise ValueError("a stage is prepare, snapshot or stream, or has one key `ramp: PERCENT`")
        return self


_AnyStage = Annotated[_Stage, BeforeValidator(_stage)]


class _Database(_Strict):
    dsn_env: Variable
    owner_dsn_env: Variable


class _Databases(_Strict):
    source: _Database
    target: _Database


class _Proxy(_Strict):
    admin: AnyHttpUrl


class _Ledger(_Strict):
    dsn_env: Variable = "STRANGLER_LEDGER_DSN"


class _Kafka(_Strict):
    bootstrap_env: Variable = Field(
        "STRANGLER_KAFKA", description="variable with the brokers, host:port,host:port"
    )
    connect_env: Variable = Field("STRANGLER_CONNECT", description="variable with the URL of Kafka Connect")
    topic: Topic | None = Field(None, description="topic of the stream's own; the slot's name unless said")
    partitions: Annotated[int, Field(ge=1, le=1_000)] = Field(
        1,
        description="1: whole transactions in commit order. More: so many processes share the stream, order is kept "
        "for each key alone (docs/how-to/kafka.md). Not to be changed while the stream lives",
    )
    max_record_bytes: Annotated[int, Field(ge=1_048_576, le=1_073_741_823)] = Field(
        LARGEST_RECORD,
        description="largest record: a row before and after the change, as JSON. A topic that exists keeps its own "
        "max.message.bytes",
    )


class _Stream(_Strict):
    source: Literal["slot", "kafka", "debezium"] = Field(
        "slot",
        description="where changes are read: the write-ahead log, what Debezium writes of it into Kafka, or Debezium's "
        "engine in a process of ours, without a broker (extra `debezium`, Java 17)",
    )
    kafka: _Kafka = _Kafka()
    slot: Name
    publication: Name
    role: Name = "cdc"
    on_refused: Literal["stop", "park"] = Field(
        "stop",
        description="a change that the target refuses stops the stream, or is parked: its key waits, others go on",
    )
    max_parked: Annotated[int, Field(ge=1, le=1_000_000)] = Field(
        1_000, description="more parked keys stop the stream: the mapping is broken, not single rows"
    )


class _Retry(_Strict):
    auto: bool = False
    after: Duration = 60.0
    max: Annotated[int, Field(ge=1)] = 3
    probes: Annotated[int, Field(ge=1, le=1000)] = 5


class _Rollback(_Strict):
    error_rate: Share = 0.05
    min_requests: Annotated[int, Field(ge=1)] = 100
    tolerate: Annotated[Share, Field(gt=0, lt=0.5)] = 0.01
    alpha: Annotated[float, Field(gt=0, lt=0.5)] = 0.001
    family_alpha: Annotated[float, Field(gt=0, lt=0.5)] = 0.01
    client_window: Duration = 10.0
    run_length: Annotated[float, Field(ge=1000)] = 11_000
    steady_run_length: Annotated[float, Field(ge=1000)] = 1_000_000
    retry: _Retry = _Retry()


class _Alert(_Strict):
    log: bool = False
    webhook: AnyHttpUrl | None = None
    webhook_env: Variable | None = None
    command: Annotated[list[str], Field(min_length=1)] | None = None

    @model_validator(mode="after")
    def _one_target(self) -> "_Alert":
        if sum(bool(given) for given in (self.log, self.webhook, self.webhook_env, self.command)) != 1:
            raise ValueError("an alert has exactly one of log: true, webhook, webhook_env, command")
        return self


class _PlanFile(_Strict):
    version: Literal[1]
    name: Name
    group: str = Field(description="group of the routes file that moves")
    routes: str = Field(description="the routes file, relative to this plan")
    proxy: _Proxy
    ledger: _Ledger = _Ledger()
    databases: _Databases
    stream: _Stream
    tables: dict[str, Any] = Field(description="what moves and how, see cdc/mapping.py")
    stages: Annotated[list[_AnyStage], Field(min_length=1)]
    gates: _Gates = _Gates()
    rollback: _Rollback = _Rollback()
    alerts: list[_Alert] = [_Alert(log=True)]


@dataclass(frozen=True, slots=True)
class _Overlay:
    """Values laid over the plan: from a second file, or from one `--set`."""

    paths: tuple[tuple[str | int, ...], ...]
    places: Places


def load_plan(
    path: Path,
    *,
    override: Path | None = None,
    settings: Sequence[str] = (),
    routes: Path | None = None,
    proxy_admin: str | None = None,
) -> Plan:
    """Read and check the plan at `path`.

    `override` is a second YAML file laid over it, `settings` are texts such as `gates.soak=5s` laid over
    both; `routes` and `proxy_admin` replace what the plan says. Raises InvalidFileError with every fault
    found.
    """
    data, places = load(path)
    digest = hashlib.sha256(path.read_bytes())
    if not isinstance(data, dict):
        raise InvalidFileError(
            [places.problem((), "a plan is a mapping of keys", "see docs/reference/plan.schema.json")]
        )
    overlays: list[_Overlay] = []
    if override is not None:
        extra, extra_places = load(override)
        digest.update(override.read_bytes())
        if not isinstance(extra, dict):
            raise InvalidFileError(
                [extra_places.problem((), "an override is a mapping of keys, like a plan")]
            )
        overlays.append(_Overlay(tuple(_lay_over(data, extra, ())), extra_places))
    for setting in settings:
        digest.update(setting.encode())
        overlays.append(_set(data, setting))
    try:
        parsed = _PlanFile.model_validate(data)
    except ValidationError as error:
        problems = [_readable(problem) for problem in places.problems_of(error)]
        problems += _mapping_problems(data, places)
        raise InvalidFileError([_relocate(problem, overlays) for problem in problems]) from error
    problems = [*_order_problems(parsed, places), *_mapping_problems(data, places)]
    if problems:
        raise InvalidFileError([_relocate(problem, overlays) for problem in problems])
    return _freeze(
        parsed,
        path=path,
        places=places,
        mapping=parse_mapping(data["tables"], places, ("tables",)),
        routes=routes,
        proxy_admin=proxy_admin,
        digest=digest.hexdigest()[:12],
    )


def json_schema() -> dict[str, Any]:
    """The JSON Schema of a plan file."""
    text = json.dumps(TypeAdapter(_PlanFile).json_schema())
    schema: dict[str, Any] = json.loads(re.sub(r'"(#/\$defs/|)_([A-Z])', r'"\1\2', text))
    stage = schema["$defs"].pop("Stage")
    stage["description"] = "one stage; every gate limit may be set for it alone"
    schema["properties"]["stages"]["items"] = {
        "anyOf": [{"enum": ["prepare", "snapshot", "stream"], "type": "string"}, stage]
    }
    return {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "title": "Strangler plan",
        "description": "What moves from the monolith to a service, in which stages, on what evidence.",
        **{key: value for key, value in schema.items() if key not in ("title", "description")},
    }


def _lay_over(
    base: dict[Any, Any], extra: dict[Any, Any], path: tuple[str | int, ...]
) -> Iterator[tuple[str | int, ...]]:
    for key, value in extra.items():
        here = (*path, key)
        if isinstance(value, dict) and isinstance(base.get(key), dict):
            yield from _lay_over(base[key], value, here)
        else:
            base[key] = value
            yield here


def _set(data: dict[Any, Any], setting: str) -> _Overlay:
    name, equals, text = setting.partition("=")
    file = f"--set {setting}"
    if not equals or not name:
        raise InvalidFileError(
            [Problem(file, 0, 0, "", "not NAME=VALUE", "write for example --set gates.soak=5s")]
        )
    value, places = parse(text, file)
    keys = tuple(name.split("."))
    here = data
    for key in keys[:-1]:
        child = here.setdefault(key, {})
        if not isinstance(child, dict):
            raise InvalidFileError(
                [Problem(file, 0, 0, name, f"{key!r} is not a mapping", "name one value of the plan")]
            )
        here = child
    here[keys[-1]] = value
    return _Overlay((keys,), places)


def _readable(problem: Problem) -> Problem:
    """The message without pydantic's quotation of a whole mapping that it refused."""
    message, quoted, _ = problem.message.partition(" (got {")
    return replace(problem, message=message) if quoted else problem


def _relocate(problem: Problem, overlays: Sequence[_Overlay]) -> Problem:
    """The fault, placed in the override that brought the value, if one did."""
    field = tuple(problem.field.split("."))
    for overlay in reversed(overlays):
        for path in overlay.paths:
            texts = tuple(str(part) for part in path)
            if field[: len(texts)] == texts:
                line, column = overlay.places.at(path)
                inline = overlay.places.file.startswith("--set")
                return replace(
                    problem,
                    file=overlay.places.file,
                    line=0 if inline else line,
                    column=0 if inline else column,
                )
    return problem


def _mapping_problems(data: Mapping[str, Any], places: Places) -> list[Problem]:
    if "tables" not in data:
        return []  # said already, as a missing key
    try:
        parse_mapping(data["tables"], places, ("tables",))
    except InvalidFileError as error:
        return list(error.problems)
    return []


def _stream(parsed: _Stream) -> Stream:
    names = parsed.kafka
    kafka = KafkaNames(
        names.bootstrap_env,
        names.connect_env,
        names.topic or parsed.slot,
        names.max_record_bytes,
        names.partitions,
    )
    return Stream(
        slot=parsed.slot,
        publication=parsed.publication,
        role=parsed.role,
        on_refused=OnRefused(parsed.on_refused),
        max_parked=parsed.max_parked,
        kafka=kafka if parsed.source == "kafka" else None,
        embedded=parsed.source == "debezium",
    )


def _order_problems(parsed: _PlanFile, places: Places) -> Iterator[Problem]:
    stages = [_kind_and_percent(stage) for stage in parsed.stages]
    if stages[0].kind is not Kind.PREPARE:
        yield places.problem(("stages", 0), "the first stage is prepare", "put `prepare` first")
    for place, (before, after) in enumerate(pairwise(stages), start=1):
        where = ("stages", place)
        if after.kind is before.kind is Kind.RAMP:
            if after.percent <= before.percent:
                yield places.problem(
                    where,
                    f"ramp {after.percent} does not rise above the {before.percent} before it",
                    "a user who has moved must not be moved back by going forward",
                )
        elif _ORDER[after.kind] != _ORDER[before.kind] + 1:
            yield places.problem(
                where,
                f"{after.kind.value} cannot follow {before.kind.value}",
                "the order is prepare, snapshot, stream, then ramps",
            )


def _kind_and_percent(stage: _Stage) -> Stage:
    if stage.ramp is not None:
        return Stage(Kind.RAMP, stage.ramp)
    assert stage.stage is not None, "the model lets nothing else through"
    return Stage(Kind(stage.stage), Decimal(0))


def _freeze(
    parsed: _PlanFile,
    *,
    path: Path,
    places: Places,
    mapping: TableMappings,
    routes: Path | None,
    proxy_admin: str | None,
    digest: str,
) -> Plan:
    rollback = parsed.rollback
    base = parsed.gates.over(GatePolicy())
    retry = rollback.retry
    return Plan(
        file=str(path),
        name=parsed.name,
        group=parsed.group,
        routes=(routes or path.parent / parsed.routes).resolve(),
        proxy_admin=(proxy_admin or str(parsed.proxy.admin)).rstrip("/"),
        ledger_env=parsed.ledger.dsn_env,
        source=Database(**parsed.databases.source.model_dump()),
        target=Database(**parsed.databases.target.model_dump()),
        stream=_stream(parsed.stream),
        mapping=mapping,
        stages=tuple(PlannedStage(_kind_and_percent(stage), stage.over(base)) for stage in parsed.stages),
        limits=Limits(**rollback.model_dump(exclude={"retry"})),
        retry=RetryPolicy(**retry.model_dump()),
        alerts=tuple(
            AlertTarget(
                log=alert.log,
                webhook=str(alert.webhook or ""),
                webhook_env=alert.webhook_env or "",
                command=tuple(alert.command or ()),
            )
            for alert in parsed.alerts
        ),
        digest=digest,
        places=places,
    )
