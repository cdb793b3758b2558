"""Which migrations are still to be applied, and when that is refused."""

from pathlib import Path

import pytest

from chassis.migrations import Applied, Migration, MigrationError, plan, read_migrations


def _migration(number: int, checksum: str = "x") -> Migration:
    return Migration(number, f"step{number}", "SELECT 1", checksum)


def _applied(number: int, checksum: str = "x") -> Applied:
    return Applied(number, f"step{number}", checksum)


def test_what_was_not_applied_comes_in_order() -> None:
    assert plan([_migration(1), _migration(2), _migration(3)], [_applied(1)]) == (
        _migration(2),
        _migration(3),
    )
    assert plan([_migration(1)], [_applied(1)]) == ()


def test_a_database_ahead_of_the_code_is_left_alone() -> None:
    assert plan([_migration(1)], [_applied(1), _applied(2)]) == ()


@pytest.mark.parametrize(
    ("available", "applied", "message"),
    [
        ([_migration(1, "new")], [_applied(1, "old")], "0001_step1.sql was edited after it was applied"),
        (
            [_migration(2)],
            [_applied(1), _applied(2)],
            "0001_step1.sql was applied to this database but is gone",
        ),
        ([_migration(1), _migration(2)], [_applied(2)], "0001_step1.sql comes before 0002"),
    ],
)
def test_another_history_is_refused(available: list[Migration], applied: list[Applied], message: str) -> None:
    with pytest.raises(MigrationError, match=message):
        plan(available, applied)


def test_files_are_read_by_number(tmp_path: Path) -> None:
    (tmp_path / "0002_second.sql").write_text("SELECT 2")
    (tmp_path / "0001_first.sql").write_text("SELECT 1")
    first, second = read_migrations(tmp_path)
    assert (first.number, first.name, second.text) == (1, "first", "SELECT 2")
    assert first.checksum != second.checksum


@pytest.mark.parametrize(
    ("names", "message"),
    [
        ([], "holds no migrations"),
        (["1_short.sql"], "must look like 0001_what_it_does.sql"),
        (["0001_a.sql", "0001_b.sql"], "number 0001 is taken by 0001_a.sql"),
    ],
)
def test_a_folder_that_is_no_history_is_refused(tmp_path: Path, names: list[str], message: str) -> None:
    for name in names:
        (tmp_path / name).write_text("SELECT 1")
    with pytest.raises(MigrationError, match=message):
        read_migrations(tmp_path)
