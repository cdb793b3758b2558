"""The table that is moved, and the two mappings it is moved by.

One source table, ten columns, about 225 bytes a row. *Straight*: every column goes to one of its own name. *Mapped*:
all but the key are renamed, one is computed, two are cast, one is derived from another, and the target has two
secondary indexes, one of which every one of the streamed updates touches. The peers map nothing; beside the mapped
shape they write the source's columns into a table with the same two indexes, the pipe with the mapping's SELECT.
"""

# ruff: noqa: S608  (all the names are our own)

from dataclasses import dataclass

SOURCE = "shop_order"
_COLUMNS = (
    "(id bigint PRIMARY KEY, code varchar(40) NOT NULL, note text, amount numeric(10,2) NOT NULL, paid boolean,"
    " at timestamptz, day date, extra jsonb, ref uuid, ip inet)"
)
CREATE_SOURCE = f"CREATE TABLE {SOURCE} {_COLUMNS}"
_NAMES = "id, code, note, amount, paid, at, day, extra, ref, ip"

_CREATE_MAPPED = (
    "CREATE TABLE orders (id bigint PRIMARY KEY, number text NOT NULL, remark text, cents bigint NOT NULL,"
    " settled boolean, placed_at timestamptz, placed_on date, details jsonb, reference text, address text,"
    " initial text)"
)

FILL = (
    f"INSERT INTO {SOURCE} SELECT g, 'C' || g, repeat('lorem ', 16) || g, g %% 9999 + 0.5, g %% 2 = 0,"
    " now(), '2026-01-01', jsonb_build_object('n', g, 'k', 'value'), gen_random_uuid(), '10.0.0.1'"
    " FROM generate_series(%s::bigint, %s::bigint) g"
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Shape:
    """A target table and how rows come into it. The subscription writes into a table like the source's."""

    suffix: str
    table: str
    note: str
    create: tuple[str, ...]
    create_peer: tuple[str, ...]
    select: str
    mapping: str


STRAIGHT = Shape(
    suffix="",
    table=SOURCE,
    note="note",
    create=(CREATE_SOURCE,),
    create_peer=(CREATE_SOURCE,),
    select=f"SELECT {_NAMES} FROM {SOURCE}",
    mapping=f"""
tables:
  {SOURCE}:
    target: {SOURCE}
    key: {{id: id}}
    columns:
      {"".join(f"{name}: {name}{chr(10)}      " for name in _NAMES.split(", ")[1:])}
""",
)
_MAPPED_TABLE = (_CREATE_MAPPED, "CREATE INDEX ON orders (number)", "CREATE INDEX ON orders (cents)")
MAPPED = Shape(
    suffix="_mapped",
    table="orders",
    note="remark",
    create=_MAPPED_TABLE,
    create_peer=(
        *_MAPPED_TABLE,  # for the pipe
        CREATE_SOURCE,
        f"CREATE INDEX ON {SOURCE} (code)",
        f"CREATE INDEX ON {SOURCE} (amount)",
    ),
    select="SELECT id, code, note, (amount * 100)::bigint, paid, at, day, extra, ref::text, host(ip), left(code, 1)"
    f" FROM {SOURCE}",
    mapping=f"""
tables:
  {SOURCE}:
    target: orders
    key: {{id: id}}
    columns:
      number: code
      remark: note
      cents: {{sql: "(amount * 100)::bigint", inverse: {{amount: "(cents::numeric / 100)::numeric(10,2)"}}}}
      settled: paid
      placed_at: at
      placed_on: day
      details: extra
      reference: {{sql: "ref::text", inverse: {{ref: "reference::uuid"}}}}
      address: {{sql: "host(ip)", inverse: {{ip: "address::inet"}}}}
      initial: {{sql: "left(code, 1)", derived: true}}
""",
)
