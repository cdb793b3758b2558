"""The catalogue's plan declares a mapping that is whole: accepted, and naming every column of the service."""

import re
from pathlib import Path

from cdc.mapping import Mapping, parse_mapping
from chassis.yamlfile import load

_ROOT = Path(__file__).parents[2]


def _mapping() -> Mapping:
    data, places = load(_ROOT / "migration_plans" / "plans" / "catalog.yaml")
    return parse_mapping(data["tables"], places)


def test_every_column_of_the_service_is_mapped_or_generated() -> None:
    schema = "\n".join(
        path.read_text() for path in sorted((_ROOT / "extracted/catalog/migrations").glob("*.sql"))
    )
    for table in _mapping().tables:
        body = re.search(rf"CREATE TABLE {table.target.name} \((.*?)\n\);", schema, re.DOTALL)
        assert body is not None, table.target
        declared = set(re.findall(r"^    ([a-z_]+) +(?!CHECK)[a-z]", body[1], re.MULTILINE))
        assert declared == {column.name for column in table.columns} | set(table.generated), table.target


def test_the_mapping_does_real_work() -> None:
    tables = {table.target.name: table for table in _mapping().tables}
    product = tables["product"]
    assert product.column("title").copied == "name"  # renamed
    assert "bigint" in product.column("price_cents").sql  # cast
    assert {"material", "specs"} <= {c.name for c in product.columns if "attributes" in c.sql}  # split
    document = tables["picture"].column("document").sql
    assert "image" in document  # merged…
    assert "alt" in document  # …from two
    assert tables["review"].column("counted_rating").derived
