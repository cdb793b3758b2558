"""The stage table is total, its reference page is drawn from it, and every state can be left."""

from pathlib import Path

import pytest

from migration_plans.stages import (
    KINDS,
    NOTES,
    TABLE,
    Event,
    GateName,
    Kind,
    RefusedError,
    State,
    follow,
    markdown,
)

EVERY_CASE = [(state, event) for state in State for event in Event]


@pytest.mark.parametrize(("state", "event"), EVERY_CASE)
def test_every_state_and_event_is_defined_or_refused_with_a_remedy(state: State, event: Event) -> None:
    if event in TABLE[state]:
        assert follow(state, event) is TABLE[state][event]
        return
    with pytest.raises(RefusedError) as refused:
        follow(state, event)
    assert NOTES[state].next in str(refused.value)
    assert state.value in str(refused.value)


def test_every_state_explains_itself_and_can_be_reached_and_left() -> None:
    assert set(NOTES) == set(TABLE) == set(State)
    targets = {target for row in TABLE.values() for target in row.values()}
    assert targets == set(State)
    assert all(TABLE[state] for state in State)


def test_from_every_state_with_traffic_a_person_can_go_back() -> None:
    for state in (State.ENTERING, State.SOAKING, State.PAUSED, State.FAILED, State.DONE):
        assert follow(state, Event.ROLLBACK) is State.ROLLING_BACK
        assert follow(state, Event.TRIPPED) is State.ROLLING_BACK


def test_every_kind_of_stage_has_gates_and_an_undo() -> None:
    assert set(KINDS) == set(Kind)
    assert all(kind.undo and GateName.PROXY in kind.gates for kind in KINDS.values())


def test_reference_page_is_the_table() -> None:
    page = Path(__file__).parents[2] / "docs/reference/stages.md"
    assert page.read_text(encoding="utf-8") == markdown(), (
        "strangler plan stages --markdown > docs/reference/stages.md"
    )
