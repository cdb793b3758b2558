"""Errors to exit codes, in one place. The codes are promised in docs/reference/contracts.md."""

from collections.abc import Sequence
from dataclasses import dataclass
from enum import IntEnum
from typing import Any

from chassis.problems import InvalidFileError
from migration_plans.controller import PlanChangedError
from migration_plans.drivers.change_stream import ChangeStreamError, PreflightRefusedError
from migration_plans.ledger import ConflictError, LedgerUnreachableError, LockedError
from migration_plans.plan import MissingVariableError
from migration_plans.proxy_admin import ProxyUnreachableError, ReloadRefusedError
from migration_plans.stages import RefusedError
from strangler_proxy.server import SettingError


class ExitCode(IntEnum):
    """What the process ends with."""

    DONE = 0
    FAILED = 1
    USAGE = 2
    FILE_REFUSED = 3
    GATE_SAYS_NO = 4
    CONFLICT = 5
    UNREACHABLE = 6


class SaysNoError(Exception):
    """A gate, check or probe says no; the message has its numbers and what to do."""


class InTheWayError(Exception):
    """Something that is there already (a port in use, a process running) is in the way."""


class NeededError(Exception):
    """Something that the command needs does not answer."""


@dataclass(frozen=True, slots=True)
class Told:
    """An error as the caller is told it."""

    code: ExitCode
    message: str
    problems: Sequence[dict[str, Any]] = ()

    def as_dict(self) -> dict[str, Any]:
        """Shape of `error` with `--json`."""
        return {"code": int(self.code), "message": self.message, "problems": list(self.problems)}


_CODES: tuple[tuple[type[Exception] | tuple[type[Exception], ...], ExitCode], ...] = (
    ((MissingVariableError, SettingError), ExitCode.USAGE),
    (ReloadRefusedError, ExitCode.FILE_REFUSED),
    ((SaysNoError, PreflightRefusedError), ExitCode.GATE_SAYS_NO),
    ((ConflictError, LockedError, RefusedError, PlanChangedError, InTheWayError), ExitCode.CONFLICT),
    ((LedgerUnreachableError, ProxyUnreachableError, ChangeStreamError, NeededError), ExitCode.UNREACHABLE),
)


def describe(error: BaseException) -> Told | None:
    """Code and message for `error`; None for one that nobody expected, which is a bug and shows its
    traceback.
    """
    if isinstance(error, ExceptionGroup) and len(error.exceptions) == 1:
        return describe(error.exceptions[0])
    if isinstance(error, InvalidFileError):
        count = len(error.problems)
        message = f"refused, {count} {'problem' if count == 1 else 'problems'}; nothing was changed\n{error}"
        return Told(ExitCode.FILE_REFUSED, message, tuple(problem.as_dict() for problem in error.problems))
    for kinds, code in _CODES:
        if isinstance(error, kinds):
            return Told(code, str(error))
    return None
