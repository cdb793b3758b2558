"""One table's way through a comparison: what is compared, what is suspected, what is proved.

    stretch ──equal──► counted
       └──unequal──► suspicion: the keys that differ ──same keys differ at a later position──► difference
                           └── equal at the later position ──► passed: said, but not called a difference

Nothing is called a difference on one look. Keys that differ only at the second look are a new suspicion and wait
for a third; after `_LOOKS` looks they are called differences, for a stretch that is never equal is one.
"""

from collections.abc import Iterator
from dataclasses import dataclass, field, replace

from cdc.compare_sql import EVERYTHING, Key, Stretch
from cdc.mapping import TableMapping
from cdc.verify_chunk import ChunkComparison, Difference, Look, Pair, Totals, WrongKey
from cdc.verify_memory import TableMemory

_LOOKS = 5


@dataclass(frozen=True, slots=True)
class TableReport:
    """One target table. `rows` counts the source's. `differing` counts rows; a lower bound unless
    `complete`. `passed`: rows that differed at one position and no longer at a later one.
    """

    rows: int
    differing: int
    differences: tuple[Difference, ...] = ()
    complete: bool = True
    passed: int = 0


@dataclass(slots=True)
class TableWork:
    """A table that is being compared. `pair` has an order when it can be walked stretch by stretch.

    `expected` rows, as the planner estimates. `again`: stretches of an earlier process, to be compared anew.
    """

    mapping: TableMapping
    pair: Pair
    expected: int
    most: int
    after: Key | None = None
    done: bool = False
    rows: int = 0
    again: list[Stretch] = field(default_factory=list)
    suspicions: list[Look] = field(default_factory=list)
    differing: int = 0
    passed: int = 0
    complete: bool = True
    differences: list[Difference] = field(default_factory=list)
    unequal: list[Stretch] = field(default_factory=list)

    @property
    def name(self) -> str:
        """The target table."""
        return str(self.mapping.target)

    @property
    def suspected(self) -> int:
        """Rows that differ so far at one position only."""
        return sum(each.rows for look in self.suspicions for each in look.wrong)

    @property
    def left(self) -> bool:
        """Whether there are stretches nobody has looked at."""
        return not self.done or bool(self.again)

    @property
    def finished(self) -> bool:
        """Whether everything is compared and settled."""
        return not self.left and not self.suspicions

    def resume(self, memory: TableMemory) -> None:
        """Go on where an earlier process was. What it found unequal is compared anew."""
        if (memory.after is not None or memory.unequal) and not self.pair[0].order:
            return  # the key's index has gone since: begin anew
        self.after, self.done, self.rows = memory.after, memory.done, memory.rows
        self.again = list(memory.unequal)

    def memory(self) -> TableMemory:
        """What a later process needs."""
        open_ends = (*self.again, *(look.stretch for look in self.suspicions), *self.unequal)
        return TableMemory(self.after, self.done, self.rows, tuple(dict.fromkeys(open_ends)))

    def report(self) -> TableReport:
        """What is known at the end."""
        return TableReport(self.rows, self.differing, tuple(self.differences), self.complete, self.passed)

    def step(self, comparison: ChunkComparison, rows: int) -> int:
        """Compare the next stretch, of about `rows` rows. Returns the rows it had."""
        if self.again:
            totals = self._compare(comparison, self.again.pop())
            return totals.source_rows
        if not self.pair[0].order:
            stretch = EVERYTHING
        else:
            edge = comparison.edge(self.pair, self.after, rows)
            stretch = Stretch(self.after, edge)
        totals = self._compare(comparison, stretch)
        self.rows += totals.source_rows
        self.after = stretch.upto
        self.done = stretch.upto is None
        return totals.source_rows

    def _compare(self, comparison: ChunkComparison, stretch: Stretch) -> Totals:
        if self.pair[0].order:
            totals = comparison.totals(self.pair, stretch)
        else:
            totals = comparison.sums(self.pair, stretch, self.expected)
        if not totals.equal:
            enough = self.most - self.differing - self.suspected
            look = comparison.closer(self.pair, stretch, totals, enough=enough)
            if not look.empty:
                self.suspicions.append(look)
        return totals

    def settle(self, comparison: ChunkComparison) -> Iterator[Difference]:
        """Look at what was suspected again, at the later position that is open now. Gives new differences."""
        suspicions, self.suspicions = self.suspicions, []
        for look in suspicions:
            now = comparison.again(self.pair, look)
            proved, new, passed = sort_out(look, now)
            self.passed += passed
            if proved:
                yield from self._prove(comparison, now, proved)
            if proved and now.unseen:
                self.differing += len(now.unseen)
                self.complete = False
            elif now.unseen:
                self.again.append(look.stretch)  # compare all of it anew
            if new:
                self.suspicions.append(replace(now, wrong=new, unseen=()))

    def _prove(
        self, comparison: ChunkComparison, look: Look, proved: tuple[WrongKey, ...]
    ) -> Iterator[Difference]:
        shown = proved[: max(0, self.most - self.differing)]
        self.differing += sum(each.rows for each in proved)
        self.unequal.append(look.stretch)
        found = list(comparison.explain(self.pair, look, shown))
        self.differences += found
        yield from found


def sort_out(before: Look, now: Look) -> tuple[tuple[WrongKey, ...], tuple[WrongKey, ...], int]:
    """(wrong at both looks, wrong at the later only, how many were wrong at the earlier only). Pure."""
    suspected = {each.key for each in before.wrong}
    proved = tuple(each for each in now.wrong if each.key in suspected or now.looks >= _LOOKS)
    new = tuple(each for each in now.wrong if each.key not in suspected and now.looks < _LOOKS)
    still = {each.key for each in now.wrong}
    return proved, new, len(suspected - still)
