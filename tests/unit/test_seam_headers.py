"""What the seam says, from facts alone."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from strangler_seam.headers import LoginFacts, sane_request_id, user_header, wants_lsn


@pytest.mark.parametrize(
    ("read", "in_session", "verified", "said"),
    [
        (False, "", "", None),
        (False, "7", "7", None),
        (True, "", "", ""),
        (True, "7", "7", "7"),
        (True, "7", "", None),
        (True, "7", "8", None),
    ],
)
def test_only_what_is_known_is_said(read: bool, in_session: str, verified: str, said: str | None) -> None:
    facts = LoginFacts(session_read=read, session_user=in_session, request_user=verified)
    assert user_header(facts) == said


@given(st.booleans(), st.sampled_from(["", "1", "2"]), st.sampled_from(["", "1", "2"]))
def test_nobody_is_named_who_was_not_verified(read: bool, in_session: str, verified: str) -> None:
    said = user_header(LoginFacts(session_read=read, session_user=in_session, request_user=verified))
    assert said in {None, "", verified}
    assert said != "" or (read and in_session == "")


@given(st.text(max_size=200))
def test_a_request_id_is_taken_as_it_is_or_not_at_all(given_id: str) -> None:
    taken = sane_request_id(given_id)
    sane = 0 < len(given_id) <= 128 and all(0x21 <= ord(letter) <= 0x7E for letter in given_id)
    assert taken == (given_id if sane else None)


def test_no_request_id() -> None:
    assert sane_request_id(None) is None


@pytest.mark.parametrize(
    ("method", "unsafe"),
    [
        ("GET", False),
        ("HEAD", False),
        ("OPTIONS", False),
        ("POST", True),
        ("PATCH", True),
        ("get", False),
        (None, True),
    ],
)
def test_the_position_is_wanted_after_what_may_write(method: str | None, unsafe: bool) -> None:
    assert wants_lsn(method) is unsafe
    assert wants_lsn(method, "unsaid") is unsafe
    assert wants_lsn(method, "wanted")
