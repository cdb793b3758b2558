"""Errors to exit codes, in one place. The codes are promised in docs/reference/contracts.md."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from enum import IntEnum
from typing import Any

from chassis.problems import InvalidFileError


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


# By name: importing all that raises them made `strangler --help` take four times as long, and who has raised one has
# imported it.
CODES: Mapping[str, ExitCode] = {
    "migration_plans.plan:MissingVariableError": ExitCode.USAGE,
    "strangler_proxy.server:SettingError": ExitCode.USAGE,
    "migration_plans.proxy_admin:ReloadRefusedError": ExitCode.FILE_REFUSED,
    "migration_plans.drivers.change_stream:PreflightRefusedError": ExitCode.GATE_SAYS_NO,
    "migration_plans.ledger:ConflictError": ExitCode.CONFLICT,
    "migration_plans.ledger:LockedError": ExitCode.CONFLICT,
    "migration_plans.stages:RefusedError": ExitCode.CONFLICT,
    "migration_plans.controller:PlanChangedError": ExitCode.CONFLICT,
    "migration_plans.ledger:LedgerUnreachableError": ExitCode.UNREACHABLE,
    "migration_plans.proxy_admin:ProxyUnreachableError": ExitCode.UNREACHABLE,
    "migration_plans.drivers.change_stream:ChangeStreamError": ExitCode.UNREACHABLE,
    f"{__name__}:SaysNoError": ExitCode.GATE_SAYS_NO,
    f"{__name__}:InTheWayError": ExitCode.CONFLICT,
    f"{__name__}:NeededError": ExitCode.UNREACHABLE,
}
"""The code of each expected error and of what derives from it; of two that fit the nearest counts."""


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
    for kind in type(error).__mro__:
        code = CODES.get(f"{kind.__module__}:{kind.__qualname__}")
        if code is not None:
            return Told(code, str(error))
    return None
