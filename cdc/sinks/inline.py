"""A step of few rows as statements: each row travels as the parameters of a prepared one. Pure."""

from collections.abc import Callable, Iterable, Iterator
from collections.abc import Mapping as MappingOf

from cdc import statements
from cdc.changes import UNCHANGED, Relation, TableName
from cdc.coalesce import Step
from cdc.sinks.plans import Plan, by_missing
from cdc.sinks.roundtrip import Bound


def inline(
    steps: Iterable[Step], plans: MappingOf[Relation, Plan], order: Callable[[TableName], int]
) -> list[Bound]:
    """Everything that `steps` do, in order. `order`: place of a table, parents before children. Raises
    MissingValueError.
    """
    return [bound for step in steps for bound in _step(step, plans, order)]


def _step(step: Step, plans: MappingOf[Relation, Plan], order: Callable[[TableName], int]) -> Iterator[Bound]:
    # delete upward, write downward
    works = step if len(step) == 1 else sorted(step, key=lambda work: order(work.relation.table))
    for work in reversed(works):
        plan = plans[work.relation]
        if work.wipe:
            yield Bound(statements.wipe(plan.table))
        if work.gone:
            sql = statements.delete(plan.table, plan.inline, plan.types)
            yield from [Bound(sql, key) for key in work.gone]
    for work in works:
        plan = plans[work.relation]
        fresh = plan.picked(work.fresh)
        for (missing, moves), rows in by_missing(plan, work).items():
            if not missing and not moves:
                fresh += [plan.pick(row) for _, row in rows]
                continue
            patch = statements.patch(
                plan.table, plan.inline, plan.types, plan.reads, missing=missing, moves=moves
            )
            if patch is None:
                continue
            for key, row in rows:
                values = [None if value is UNCHANGED else value for value in plan.pick(row)]
                yield Bound(patch, (*key, *values), rows=1)
        if fresh:
            sql = statements.upsert(plan.table, plan.inline)
            yield from [Bound(sql, row) for row in fresh]  # type: ignore[arg-type]  # these rows hold no UNCHANGED
