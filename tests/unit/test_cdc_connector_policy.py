"""What is done about a connector: every state that Connect and the source can show."""

import pytest

from cdc.connect import ConnectorStatus, State, TaskStatus
from cdc.connector_policy import (
    BACK_OFF,
    PATIENCE,
    READER,
    SETTLED,
    WELL_FOR,
    Act,
    SlotSeen,
    Verdict,
    Watched,
    judge,
)

OURS = SlotSeen(exists=True, pid=7, reader=READER)
FREE = SlotSeen(exists=True)
WELL = Verdict(Act.NOTHING, "")


def status(
    task: State | None = State.RUNNING, *, connector: State = State.RUNNING, fault: str = ""
) -> ConnectorStatus:
    tasks = () if task is None else (TaskStatus(task, "worker", fault),)
    return ConnectorStatus("stream", TaskStatus(connector, "worker", ""), tasks)


FAILED = status(State.FAILED, fault="no route to host")


def acts(seen: ConnectorStatus | None, slot: SlotSeen, *, seconds: int) -> list[int]:
    """The seconds at which something was done, asked once a second."""
    watched, done = Watched(), []
    for now in range(seconds):
        watched, verdict = judge(watched, status=seen, slot=slot, now=float(now))
        if verdict.act is not Act.NOTHING:
            done.append(now)
    return done


def test_all_is_well() -> None:
    _, verdict = judge(Watched(), status=status(), slot=OURS, now=0)
    assert verdict == WELL


TOO_LARGE = "org.apache.kafka.common.errors.RecordTooLargeException: "
SENT = "The message is 9 bytes when serialized which is larger than 8, which is the value of the max.request.size"
TAKEN = "The request included a message larger than the max message size the server will accept."
FAULTS = {
    TOO_LARGE + SENT: "stream.kafka.max_record_bytes",
    TOO_LARGE + TAKEN: "max.message.bytes of the stream's topic",
    'org.postgresql.util.PSQLException: ERROR: publication "shop" does not exist': "CREATE PUBLICATION",
    "org.apache.kafka.common.errors.TopicAuthorizationException: Not authorized to access topics: [a]": "the right",
}


@pytest.mark.parametrize(("fault", "told"), FAULTS.items())
def test_a_fault_that_is_known_comes_with_what_to_do(fault: str, told: str) -> None:
    _, verdict = judge(Watched(), status=status(State.FAILED, fault=fault), slot=FREE, now=0)
    assert verdict.fault.startswith("task 0 is failed: org.")
    assert told in verdict.fault


def test_a_failed_task_is_restarted_at_once_then_ever_later() -> None:
    _, verdict = judge(Watched(), status=FAILED, slot=FREE, now=0)
    assert verdict.act is Act.RESTART
    assert verdict.fault == "task 0 is failed: no route to host"
    assert acts(FAILED, FREE, seconds=200) == [0, 2, 7, 17, 47, 107, 167]
    assert BACK_OFF == (0.0, 2.0, 5.0, 10.0, 30.0, 60.0), "the seconds above are their sums"


def test_a_fault_is_told_between_attempts() -> None:
    tried, _ = judge(Watched(), status=FAILED, slot=FREE, now=0)
    waiting, verdict = judge(tried, status=FAILED, slot=FREE, now=1)
    assert verdict == Verdict(Act.NOTHING, "task 0 is failed: no route to host")
    assert waiting == tried


def test_a_lost_connector_is_registered_at_the_same_pace() -> None:
    watched, verdict = judge(Watched(), status=None, slot=FREE, now=0)
    assert verdict == WELL, "a worker that has just started knows nothing yet"
    _, verdict = judge(watched, status=None, slot=FREE, now=SETTLED)
    assert verdict.act is Act.REGISTER
    assert "does not know" in verdict.fault
    assert acts(None, FREE, seconds=24) == [3, 5, 10, 20]


def test_running_for_a_moment_does_not_make_attempts_quicker() -> None:
    watched = Watched(attempts=4, tried_at=0)
    watched, _ = judge(watched, status=status(), slot=OURS, now=1)
    watched, verdict = judge(watched, status=FAILED, slot=FREE, now=2)
    assert verdict.act is Act.NOTHING
    assert watched.attempts == 4


def test_running_long_enough_forgets_earlier_attempts() -> None:
    watched, _ = judge(Watched(attempts=4, tried_at=0), status=status(), slot=OURS, now=1)
    watched, _ = judge(watched, status=status(), slot=OURS, now=1 + WELL_FOR)
    watched, verdict = judge(watched, status=FAILED, slot=FREE, now=2 + WELL_FOR)
    assert verdict.act is Act.RESTART
    assert watched.attempts == 1


def test_what_a_person_paused_is_left_alone() -> None:
    for state in (State.PAUSED, State.STOPPED):
        held = status(state, connector=state)
        _, verdict = judge(Watched(), status=held, slot=FREE, now=0)
        assert verdict.act is Act.NOTHING
        assert f"the connector is {state.value}" in verdict.fault
    assert acts(status(None, connector=State.STOPPED), FREE, seconds=300) == []


def test_connect_may_take_its_time_to_share_work_out() -> None:
    for moving in (status(State.UNASSIGNED), status(State.RESTARTING), status(None)):
        watched, verdict = judge(Watched(), status=moving, slot=FREE, now=0)
        assert verdict == WELL
        watched, verdict = judge(watched, status=moving, slot=FREE, now=PATIENCE - 1)
        assert verdict == WELL
        watched, verdict = judge(watched, status=moving, slot=FREE, now=PATIENCE)
        assert verdict.act is Act.NOTHING
        assert verdict.fault


def test_a_connector_that_runs_but_does_not_read_its_slot_is_told() -> None:
    watched, verdict = judge(Watched(), status=status(), slot=FREE, now=0)
    assert verdict == WELL, "a moment without a reader is ordinary: it is starting"
    _, verdict = judge(watched, status=status(), slot=FREE, now=PATIENCE)
    assert verdict == Verdict(Act.NOTHING, "the connector runs, but nobody reads its slot")


def test_somebody_else_on_the_slot_is_told_at_once() -> None:
    _, verdict = judge(Watched(), status=status(), slot=SlotSeen(exists=True, pid=9, reader="psql"), now=0)
    assert verdict.fault.endswith("read by somebody else: 'psql', process 9")
    _, verdict = judge(Watched(), status=status(), slot=SlotSeen(exists=True, pid=9), now=0)
    assert "without a visible name, process 9" in verdict.fault


def test_without_its_slot_nothing_is_registered_or_restarted() -> None:
    for seen in (None, FAILED, status()):
        _, verdict = judge(Watched(), status=seen, slot=SlotSeen(exists=False), now=0)
        assert verdict.act is Act.LOOK_ANEW


def test_a_long_fault_keeps_both_its_ends() -> None:
    told = status(State.FAILED, fault="begins " + "x" * 5_000 + " ends")
    _, verdict = judge(Watched(), status=told, slot=FREE, now=0)
    assert "begins" in verdict.fault
    assert verdict.fault.endswith("ends")
    assert len(verdict.fault) < 400
