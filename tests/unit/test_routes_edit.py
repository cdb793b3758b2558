"""`set_percent` changes numbers and nothing else, whole or not at all, also with many editors at once."""

from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime
from decimal import Decimal
from pathlib import Path

import pytest

from chassis.problems import InvalidFileError
from strangler_proxy.edit import replace_refused, set_percent
from strangler_proxy.routes import load_routes, version_of

TEXT = """\
# The shop's traffic.   (odd   spacing, kept)
version: 1
backends: {monolith: {url: "http://127.0.0.1:8001"},
           catalog:  {url: 'http://127.0.0.1:8101'},   orders: {url: http://127.0.0.1:8102}}
default: monolith

groups:
    catalog:   # one aggregate
        backend: catalog
        paths: ["/api/products",   "/api/products/*"]
        percent:   25   # percent: 99 in a comment stays
        sticky: "user"
    orders: {backend: orders, paths: [/api/orders], percent: 7.5, sticky: ip}
"""

AT = datetime(2026, 11, 21, 3, 4, 5, tzinfo=UTC)


@pytest.fixture
def routes(tmp_path: Path) -> Path:
    """A file with every kind of notation."""
    path = tmp_path / "routes.yaml"
    path.write_text(TEXT)
    path.chmod(0o640)
    return path


def test_only_the_number_changes(routes: Path) -> None:
    version = set_percent(routes, {"catalog": Decimal(50), "orders": Decimal("0.01")})
    expected = TEXT.replace("percent:   25 ", "percent:   50 ").replace("percent: 7.5", "percent: 0.01")
    assert routes.read_text() == expected
    assert version == version_of(expected.encode()) == load_routes(routes).version
    assert routes.stat().st_mode & 0o777 == 0o640
    assert [path.name for path in routes.parent.iterdir()] == ["routes.yaml"]


@pytest.mark.parametrize("percent", ["100", "100.00", "1E+1", "0", "33.33"])
def test_any_notation_of_a_decimal(routes: Path, percent: str) -> None:
    set_percent(routes, {"catalog": Decimal(percent)})
    assert load_routes(routes).groups["catalog"].percent == Decimal(percent)
    assert "E" not in routes.read_text().split("percent:")[1].split("#")[0]


@pytest.mark.parametrize("percent", ["101", "-1", "0.001", "NaN"])
def test_illegal_percentage_is_refused_and_nothing_is_written(routes: Path, percent: str) -> None:
    inode = routes.stat().st_ino
    with pytest.raises(InvalidFileError):
        set_percent(routes, {"orders": Decimal(5), "catalog": Decimal(percent)})
    assert routes.read_text() == TEXT
    assert routes.stat().st_ino == inode


def test_unknown_group_is_refused(routes: Path) -> None:
    with pytest.raises(InvalidFileError, match=r"no group 'basket' \(name one of: catalog, orders\)"):
        set_percent(routes, {"basket": Decimal(5)})
    assert routes.read_text() == TEXT


def test_broken_file_is_not_edited(routes: Path) -> None:
    routes.write_text(TEXT + "surprise: 1\n")
    with pytest.raises(InvalidFileError, match="unknown key"):
        set_percent(routes, {"catalog": Decimal(5)})


def test_what_cannot_be_replaced_is_left_to_a_person(routes: Path) -> None:
    routes.write_text(TEXT.replace("percent:   25", "percent: &share 25"))
    with pytest.raises(InvalidFileError, match="edit it by hand"):
        set_percent(routes, {"catalog": Decimal(5)})


def test_symbolic_link_stays_one(routes: Path) -> None:
    link = routes.parent / "link.yaml"
    link.symlink_to(routes)
    set_percent(link, {"catalog": Decimal(50)})
    assert link.is_symlink()
    assert load_routes(routes).groups["catalog"].percent == 50


def test_concurrent_editors_lose_nothing(routes: Path) -> None:
    def edit(number: int) -> None:
        group = "catalog" if number % 2 else "orders"
        set_percent(routes, {group: Decimal(number)})

    with ThreadPoolExecutor(8) as pool:
        list(pool.map(edit, range(40)))
    set_percent(routes, {"catalog": Decimal(1)})
    set_percent(routes, {"orders": Decimal(2)})
    groups = load_routes(routes).groups
    assert (groups["catalog"].percent, groups["orders"].percent) == (1, 2)


def test_a_refused_file_is_put_aside_and_what_runs_is_written_with_the_percentage(routes: Path) -> None:
    broken = TEXT.replace("percent:   25 ", "percent: lots ").encode()
    routes.write_bytes(broken)
    aside = replace_refused(routes, TEXT.encode(), {"catalog": Decimal(0)}, at=AT)
    assert aside == routes.with_name("routes.yaml.refused-20261121T030405Z")
    assert aside.read_bytes() == broken, "nothing of the person's edit is lost"
    assert routes.read_text() == TEXT.replace("percent:   25 ", "percent:   0 ")
    assert routes.stat().st_mode & 0o777 == 0o640
    assert sorted(path.name for path in routes.parent.iterdir()) == sorted([routes.name, aside.name])


def test_a_second_refused_file_of_the_same_second_does_not_replace_the_first(routes: Path) -> None:
    kept = []
    for number in range(3):
        routes.write_text(f"broken {number}")
        kept.append(replace_refused(routes, TEXT.encode(), {"catalog": Decimal(0)}, at=AT))
    assert [aside.read_text() for aside in kept if aside] == ["broken 0", "broken 1", "broken 2"]


def test_a_file_that_was_repaired_meanwhile_stays(routes: Path) -> None:
    routes.write_text(TEXT + "# repaired\n")
    assert replace_refused(routes, b"version: 1", {"catalog": Decimal(0)}, at=AT) is None
    assert load_routes(routes).groups["catalog"].percent == 0
    assert routes.read_text().endswith("# repaired\n")


def test_a_file_that_is_gone_is_written_again(routes: Path) -> None:
    routes.unlink()
    assert replace_refused(routes, TEXT.encode(), {"catalog": Decimal(0)}, at=AT) is None
    assert load_routes(routes).groups["catalog"].percent == 0


def test_what_runs_must_be_legal_itself_or_nothing_is_touched(routes: Path) -> None:
    routes.write_text("broken")
    with pytest.raises(InvalidFileError):
        replace_refused(routes, b"broken too", {"catalog": Decimal(0)}, at=AT)
    with pytest.raises(InvalidFileError, match="no group"):
        replace_refused(routes, TEXT.encode(), {"cart": Decimal(0)}, at=AT)
    assert routes.read_text() == "broken"
    assert [path.name for path in routes.parent.iterdir()] == ["routes.yaml"]
