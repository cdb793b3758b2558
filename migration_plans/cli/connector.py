"""`strangler cdc connector register|status|restart|delete`: Debezium's connector of a plan with `stream.source: kafka`.

The running stream registers and repairs its connector by itself (`cdc.connector_watch`); these verbs are for looking,
and for what a person decides.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import click
import psycopg

from cdc.connect import Connect, ConnectorStatus, KafkaSettings, State, TaskStatus, register
from cdc.connector_faults import remedy
from cdc.pipeline import StreamConfig
from cdc.pipeline import connector as connector_of
from cdc.seams import AwayError, StreamError
from cdc.sessions import connect
from cdc.sources.slot import slot_state
from chassis.problems import InvalidFileError
from migration_plans.cli.answer import show
from migration_plans.cli.exits import InTheWayError, NeededError, SaysNoError
from migration_plans.cli.session import Session, confirm, json_option, with_session, yes_option
from migration_plans.drivers.cdc_stream import CdcStream


@click.group()
def connector() -> None:
    """The Debezium connector of a plan whose changes travel through Kafka.

    \b
    Example:
      strangler cdc connector status catalog
    """


@connector.command("register")
@with_session
@json_option
def register_verb(*, session: Session, as_json: bool) -> None:
    """Make PLAN's connector, or give it the configuration that the plan asks for, and wait until it runs.

    `strangler cdc run` does the same once its snapshot has made the slot. Before that the answer is exit code 4:
    Debezium would make a slot of its own, which the snapshot knows nothing of. Exit code 4 also when Connect refuses
    the configuration or the connector fails.

    \b
    Example:
      strangler cdc connector register catalog
    """
    config, kafka = _settings(session)
    with _answers():
        _check_slot(session, config)
        register(kafka, name=config.slot, stream=connector_of(config, kafka), over_spoiled=True)
        with Connect(kafka.connect) as door:
            status = door.wait_running(config.slot)
    _show(status, as_json=as_json)


@connector.command("status")
@with_session
@json_option
def status_verb(*, session: Session, as_json: bool) -> None:
    """Show the state of PLAN's connector and of each of its tasks.

    Exit code 4 when not all of them run, 6 when there is no connector or Kafka Connect does not answer.

    \b
    Example:
      strangler cdc connector status catalog --json
    """
    config, kafka = _settings(session)
    with _answers(), Connect(kafka.connect) as door:
        status = _present(door.status(config.slot), session, door)
    _show(status, as_json=as_json)
    if not status.running:
        raise SaysNoError(
            f"connector {status.name} does not run; `strangler cdc connector restart {session.plan.file}` tries again"
        )


@connector.command("restart")
@with_session
@click.option("--all", "everything", is_flag=True, help="What runs, too.")
@json_option
def restart_verb(*, session: Session, everything: bool, as_json: bool) -> None:
    """Restart what failed of PLAN's connector, resume it where it was paused or stopped; wait until it runs.

    Exit code 4 when it fails again.

    \b
    Examples:
      strangler cdc connector restart catalog
      strangler cdc connector restart catalog --all
    """
    config, kafka = _settings(session)
    with _answers(), Connect(kafka.connect) as door:
        before = _present(door.status(config.slot), session, door)
        _check_slot(session, config)
        if before.connector.state in (State.PAUSED, State.STOPPED):
            door.resume(config.slot)
        else:
            door.restart(config.slot, only_failed=not everything)
        status = door.wait_running(config.slot)
    _show(status, as_json=as_json)


@connector.command("delete")
@with_session
@yes_option
@json_option
def delete_verb(*, session: Session, yes: bool, as_json: bool) -> None:
    """Remove PLAN's connector and what Connect remembers of its place in the log. Slot, publication and topic stay.

    Exit code 5 while the stream runs, which would register it again. The slot keeps the source's log from then on,
    until the connector is back or the migration is reset.

    \b
    Example:
      strangler cdc connector delete catalog --yes
    """
    config, kafka = _settings(session)
    driver = CdcStream(session.plan)
    stream = driver.status()
    driver.close()
    if stream is not None and stream.running:
        raise InTheWayError("the change stream runs and would register its connector again; stop it first")
    confirm(
        f"Remove connector {config.slot}? Slot {config.slot} then keeps the source's log until it is back.",
        yes=yes,
    )
    with _answers(), Connect(kafka.connect) as door:
        there = door.delete(config.slot)
    show(
        {"name": config.slot, "deleted": there},
        f"connector {config.slot} is removed" if there else f"there was no connector {config.slot}",
        as_json=as_json,
    )


def _settings(session: Session) -> tuple[StreamConfig, KafkaSettings]:
    """Raises InvalidFileError when the plan's changes do not travel through Kafka."""
    config = CdcStream(session.plan).running_config()
    if config.kafka is None:
        problem = session.plan.problem(
            ["stream", "source"], "the stream reads the write-ahead log itself: it has no connector",
            "say `source: kafka` here to use Debezium",
        )  # fmt: skip
        raise InvalidFileError([problem])
    return config, config.kafka


def _check_slot(session: Session, config: StreamConfig) -> None:
    """Raises SaysNoError when the slot is not there: Debezium would make one that begins after what is missing."""
    with connect(config.source_dsn, name=f"strangler_cdc {config.slot}") as source:
        if slot_state(source, config.slot) is None:
            raise SaysNoError(
                f"slot {config.slot} does not exist on the source; `strangler cdc run {session.plan.file}` takes the "
                "snapshot, which makes it, and registers the connector"
            )


def _present(status: ConnectorStatus | None, session: Session, door: Connect) -> ConnectorStatus:
    if status is None:
        raise NeededError(
            f"Kafka Connect at {door.url} has no connector {session.plan.stream.slot}; "
            f"`strangler cdc connector register {session.plan.file}` makes it"
        )
    return status


def _show(status: ConnectorStatus, *, as_json: bool) -> None:
    body = {
        "name": status.name,
        "running": status.running,
        "connector": _as_dict(status.connector),
        "tasks": [_as_dict(task) for task in status.tasks],
    }
    lines = [_line(f"connector {status.name}", status.connector)]
    lines += [_line(f"task {number}", task) for number, task in enumerate(status.tasks)]
    show(body, "\n".join(lines if status.tasks else [*lines, "it has no task"]), as_json=as_json)


def _as_dict(part: TaskStatus) -> dict[str, Any]:
    return {
        "state": part.state.value, "worker": part.worker, "fault": part.fault, "remedy": remedy(part.fault)
    }  # fmt: skip


def _line(name: str, part: TaskStatus) -> str:
    place = f" on {part.worker}" if part.worker else ""
    told = remedy(part.fault)
    return (
        f"{name}: {part.state.value}{place}"
        + (f": {part.fault}" if part.fault else "")
        + (f"\n  {told}" if told else "")
    )


@contextmanager
def _answers() -> Iterator[None]:
    try:
        yield
    except AwayError as error:
        raise NeededError(str(error)) from error
    except StreamError as error:
        raise SaysNoError(str(error)) from error
    except psycopg.OperationalError as error:
        raise NeededError(f"the source does not answer: {str(error).strip()}") from error
