"""Child processes that never outlive us, not even after `kill -9`.

Linux can send a process a signal when its parent ends (`PR_SET_PDEATHSIG`). Two of its rules matter here:
the "parent" is the *thread* that forked, so children are started from the main thread; and a change of user
clears the setting, so it is made after it (`subprocess` runs `preexec_fn` last). Where the call does not
exist (macOS) only an orderly end of the supervisor ends the children.
"""

import ctypes
import os
import signal
import sys
from collections.abc import Callable
from pathlib import Path

_PR_SET_PDEATHSIG = 1


def end_with_parent(how: signal.Signals) -> Callable[[], None]:
    """A `preexec_fn` for `subprocess.Popen`: the child gets `how` when the calling thread ends.

    The C library is bound here, in the parent: loading it between fork and exec could wait for a lock that
    another thread held at the fork.
    """
    if sys.platform != "linux":
        return _nothing
    prctl = ctypes.CDLL(None, use_errno=True).prctl
    parent = os.getpid()

    def arrange() -> None:
        prctl(_PR_SET_PDEATHSIG, int(how))
        if os.getppid() != parent:  # the parent ended between fork and prctl
            os.kill(os.getpid(), signal.SIGKILL)

    return arrange


def _nothing() -> None:
    return None


def group_is_empty(group: int) -> bool:
    """Whether no live process is left in the process group `group`; zombies do not live."""
    try:
        os.killpg(group, 0)
    except ProcessLookupError:
        return True
    except PermissionError:
        return False
    return not _live_members(group)


def birth(pid: int) -> int | None:
    """When the process `pid` began, in clock ticks since the machine's start; None when it is gone or unknown.

    Together with the id it names one process for good: ids are used again.
    """
    try:
        # the 22nd field, counted from the id; the third is the first after the command name
        return int(Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[19])
    except (FileNotFoundError, ProcessLookupError):
        return None


def _live_members(group: int) -> list[int]:
    """Process ids of `group` that are not zombies; `[group]` where there is no /proc to tell."""
    proc = Path("/proc")
    if not (proc / "self" / "stat").exists():
        return [group]
    found: list[int] = []
    for entry in proc.iterdir():
        if not entry.name.isdigit():
            continue
        try:
            # fields after the parenthesised command name: state, parent, process group, ...
            state, _parent, its_group = (entry / "stat").read_text().rpartition(")")[2].split()[:3]
        except (FileNotFoundError, ProcessLookupError):  # it ended while we looked
            continue
        if int(its_group) == group and state not in {"Z", "X"}:
            found.append(int(entry.name))
    return found
