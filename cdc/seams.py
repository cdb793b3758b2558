"""The two seams of the pipeline: where transactions come from and where they go.

Every implementation of a seam passes the same contract tests (`tests/contract/test_cdc_*`): the real ones
(`sources.slot`, `sinks.postgres`) and the fakes that ship with the package (`sources.memory`,
`sinks.memory`).
"""

from collections.abc import Callable, Sequence
from typing import Protocol

from cdc.changes import Event, Lsn, Transaction

BEGIN_ANEW = "tear the stream down and prepare it again, the snapshot then copies everything anew"
"""What remains to be done when the source cannot give the changes that the target lacks."""


class StreamError(Exception):
    """The stream cannot go on as things are, a person has to act; the message says what to do."""


class AwayError(Exception):
    """Something the stream needs does not answer, which passes: it is asked again."""


class Source(Protocol):
    """Yields committed transactions in commit order, large ones in pieces (`Transaction.more`). Used by one
    thread, save `confirm`, which any may call.
    """

    def start(self, after: Lsn) -> None:
        """Begin with the first transaction whose position is greater than `after`, or earlier ones."""

    def read(self, timeout: float) -> list[Event]:
        """What has arrived, in order; waits up to `timeout` seconds for the first. May be empty.

        A `Watermark` never runs ahead of a transaction that is still to come.
        """

    def confirm(self, position: Lsn) -> None:
        """Everything up to `position` is stored in the target; the source may forget it."""

    def answer(self) -> None:
        """Tell the source that we live, without reading: called while the sink is slower than the source."""

    def close(self) -> None:
        """Let go. What was not confirmed comes again after the next `start`."""


class Sink(Protocol):
    """Stores transactions and how far it has come, both or neither."""

    def position(self) -> Lsn | None:
        """The stored position; None when the target has never been filled."""

    def durable(self) -> Lsn | None:
        """How far what is stored also survives a crash of the target; never further than `position`. None when
        the target has never been filled. Only this may be confirmed to a source.
        """

    def apply(
        self, transactions: Sequence[Transaction], *, meanwhile: Callable[[], None] | None = None
    ) -> None:
        """Store the changes of `transactions` and the position of the last one, atomically.

        When the last one goes on (`Transaction.more`), nothing is stored yet: it is with the call that brings
        the end. An exception forgets what was not stored, whichever call brought it. `meanwhile` may be called,
        once, while the target is at work; it uses no method of the sink but `prepare`.
        """

    def prepare(self, transactions: Sequence[Transaction]) -> None:
        """This very object comes with the next `apply`, or never: what can be done for it without the target may
        be done now. Nothing of it is stored and nothing refused.
        """

    def advance(self, position: Lsn) -> None:
        """Store that nothing happened up to `position`. Never called between the pieces of a transaction."""

    def close(self) -> None:
        """Let go. What was not stored is forgotten."""
