"""The mapping's declaration: what is read, what is refused, and on which line."""

import pytest

from cdc.changes import TableName
from cdc.mapping import parse_mapping, reverse
from chassis.problems import InvalidFileError
from chassis.yamlfile import parse
from tests.cdc_shop import shop_mapping


def refusals(text: str) -> list[tuple[int, str]]:
    data, places = parse(text, "plan.yaml")
    with pytest.raises(InvalidFileError) as refused:
        parse_mapping(data["tables"], places)
    assert all(problem.file == "plan.yaml" and problem.remedy for problem in refused.value.problems)
    return [(problem.line, problem.message) for problem in refused.value.problems]


def test_a_mapping_is_read() -> None:
    table = shop_mapping().table(TableName("public", "catalog_product"))
    assert table.target == TableName("public", "product")
    assert table.column("title").copied == "name"
    assert table.column("price_cents").sql == "(price * 100)::bigint"
    assert table.column("initial").derived
    assert {part.name for part in table.restored} >= {"id", "price", "is_active", "description"}
    assert dict(table.ignored) == {"search_vector": "the service builds its own"}


def test_key_columns_need_not_be_written_twice() -> None:
    table = shop_mapping().table(TableName("public", "catalog_stock"))
    assert [column.name for column in table.key_columns()] == ["place", "product_id"]
    assert table.column("place").copied == "warehouse"


HEAD = """\
tables:
  a:
    key: {id: id}
    columns:
"""


@pytest.mark.parametrize(
    ("body", "line", "part"),
    [
        ("      x: {sql: upper(name)}\n", 5, "has no inverse"),
        ("      x: upper(name)\n", 5, "has no inverse"),
        ("      x: name\n      y: name\n", 6, "restored by 2 target columns"),
        ("      x: name\n    generated: [x]\n", 6, "written twice"),
        ("      x: name\n    ignore: {name: why}\n", 6, "both carried and ignored"),
        ("      id: other\n", 3, "not mapped one-to-one"),
        ("      x: {sql: a; DROP TABLE b, derived: true}\n", 5, "';' is not allowed"),
        ("      x: {sql: (SELECT 1), derived: true}\n", 5, "'SELECT' is not allowed"),
        ("      x: {sql: a + b, derived: true, inverse: {a: x}}\n", 5, "derived column has no inverse"),
        ("      x: {sql: a + b, derived: true, typo: 1}\n", 5, "unknown key 'typo'"),
        ("      x: 5\n", 5, "should be the name of a source column"),
    ],
)
def test_each_fault_is_named_with_its_line(body: str, line: int, part: str) -> None:
    found = refusals(HEAD + body)
    assert any(at == line and part in message for at, message in found), found


@pytest.mark.parametrize(
    ("text", "line", "part"),
    [
        ("tables:\n  a:\n    key: {id: [x, y]}\n    columns: {b: c}\n", 3, "2 source columns"),
        ("tables:\n  a:\n    key: {i: id, j: id}\n    columns: {b: c}\n", 3, "used 2 times"),
        ("tables:\n  a:\n    columns: {b: c}\n", 2, "missing key 'key'"),
        ("tables:\n  a:\n    key: {}\n    columns: {b: c}\n", 3, "at least 1"),
        ("tables: {}\n", 1, "at least 1"),
        (
            (
                "tables:\n  a: {target: t, key: {i: i}, columns: {b: c}}\n"
                "  b: {key: {i: i}, columns: {b: c},\n      target: t}\n"
            ),
            4,
            "already filled from a",
        ),
        (
            (
                "tables:\n  a: {key: {i: i}, columns: {b: c}}\n"
                "  public.a: {key: {i: i}, target: t, columns: {b: c}}\n"
            ),
            3,
            "mapped twice",
        ),
    ],
)
def test_faults_of_tables_and_keys(text: str, line: int, part: str) -> None:
    found = refusals(text)
    assert any(at == line and part in message for at, message in found), found


def test_all_faults_are_reported_at_once() -> None:
    assert len(refusals(HEAD + "      x: upper(a)\n      y: lower(b)\n")) == 2


def test_words_inside_strings_are_not_sql() -> None:
    data, places = parse(HEAD + "      x: {sql: \"a || '; select'\", derived: true}\n", "plan.yaml")
    assert parse_mapping(data["tables"], places).tables[0].column("x").derived


def test_the_reverse_restores_the_source() -> None:
    back = reverse(shop_mapping()).table(TableName("public", "product"))
    assert back.target == TableName("public", "catalog_product")
    assert back.column("price").sql == "(price_cents::numeric / 100)::numeric(10,2)"
    assert back.column("name").copied == "title"
    assert {name for name, _ in back.ignored} == {"initial", "summary", "search"}
    assert back.generated == ("search_vector",)
    assert [(part.target, part.source) for part in back.key] == [("id", "product_id")]


def test_twice_reversed_is_the_same_but_for_what_was_derived() -> None:
    mapping = shop_mapping()
    again = reverse(reverse(mapping))
    for before, after in zip(mapping.tables, again.tables, strict=True):
        kept = {column.name: column.sql for column in before.columns if not column.derived}
        assert {column.name: column.sql for column in after.columns} == kept
        assert after.key == before.key
