"""What the seam tells the proxy. Pure: facts in, headers out.

The proxy strips `X-Strangler-*` from what it passes on, so shoppers never see them.
"""

import re
from dataclasses import dataclass

REQUEST_ID = "X-Request-ID"
USER = "X-Strangler-User"
LSN = "X-Strangler-LSN"
POSITION = "X-Strangler-Position"

_SANE = re.compile(r"[\x21-\x7e]{1,128}")
_SAFE_METHODS = frozenset({"GET", "HEAD", "OPTIONS", "TRACE"})


@dataclass(frozen=True, slots=True)
class LoginFacts:
    """What is known of the login after the view has run, without looking anything up for this purpose.

    `session_read`: something looked into the session. `session_user`: the primary key it holds, "" for none.
    `request_user`: primary key of the user that Django verified for this request, "" for nobody or not asked.
    """

    session_read: bool
    session_user: str
    request_user: str


def sane_request_id(given: str | None) -> str | None:
    """The id as received, or None when it is not 1 to 128 visible ASCII characters."""
    return given if given is not None and _SANE.fullmatch(given) else None


def user_header(facts: LoginFacts) -> str | None:
    """Value of X-Strangler-User, or None: "not known" is said by silence, never by an empty value.

    A session that nobody read is not known; reading it now would add `Vary: Cookie` to pages that do not
    vary. A key in the session that Django has not verified in this request (it checks the password's digest)
    is not known either.
    """
    if not facts.session_read:
        return None
    if facts.session_user in {"", facts.request_user}:
        return facts.session_user
    return None


def wants_lsn(method: str | None, asked: str | None = None) -> bool:
    """Whether the proxy must know how far the log has come: after what may have written, and where it says that
    it wants to (`asked`, the value of X-Strangler-Position), to tell a stale copy from a wrong one.
    """
    return (method or "").upper() not in _SAFE_METHODS or asked == "wanted"
