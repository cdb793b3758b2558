"""A step of many rows as statements: each kind of row is copied into its staged table and goes on from there. Pure."""

from collections.abc import Callable, Iterable, Iterator, Sequence
from collections.abc import Mapping as MappingOf

from cdc import statements
from cdc.changes import Relation, TableName, Value
from cdc.coalesce import Step
from cdc.copytext import encode_rows
from cdc.sinks.plans import Plan, by_missing
from cdc.sinks.script import Statement


def staged(
    steps: Iterable[Step], plans: MappingOf[Relation, Plan], order: Callable[[TableName], int]
) -> list[Statement]:
    """Everything that `steps` do, in order. `order`: place of a table, parents before children. Raises
    MissingValueError.
    """
    return [statement for step in steps for statement in _step(step, plans, order)]


def _step(
    step: Step, plans: MappingOf[Relation, Plan], order: Callable[[TableName], int]
) -> Iterator[Statement]:
    # parents are listed before children: delete upward, write downward
    works = sorted(step, key=lambda work: order(work.relation.table))
    for work in reversed(works):
        plan = plans[work.relation]
        if work.wipe:
            yield Statement(statements.wipe(plan.table))
        if work.gone:
            yield _copied(statements.copy_gone(plan.staged), work.gone)
            yield Statement(statements.delete(plan.table, plan.staged, plan.types))
            yield _emptied(plan.staged.gone)
    for work in works:
        plan = plans[work.relation]
        fresh = plan.picked(work.fresh)
        for (missing, moves), rows in by_missing(plan, work).items():
            if not missing and not moves:
                fresh += [plan.pick(row) for _, row in rows]
                continue
            statement = statements.patch(
                plan.table, plan.staged, plan.types, plan.reads, missing=missing, moves=moves
            )
            if statement is None:
                continue
            present = [place for place, name in enumerate(plan.used) if name not in missing]
            yield _copied(
                statements.copy_holes(plan.table, plan.staged, missing=missing),
                [(*key, *[plan.pick(row)[place] for place in present]) for key, row in rows],
            )
            yield Statement(statements.exactly(statement, len(rows)))
            yield _emptied(plan.staged.holes)
        if fresh:
            yield _copied(statements.copy_fresh(plan.staged), fresh)
            yield Statement(statements.upsert(plan.table, plan.staged))
            yield _emptied(plan.staged.fresh)


def _copied(statement: str, rows: Sequence[Sequence[Value]]) -> Statement:
    return Statement(statement, encode_rows(rows))  # type: ignore[arg-type]  # rows here hold no UNCHANGED


def _emptied(table: str) -> Statement:
    return Statement(f"TRUNCATE {table}")
