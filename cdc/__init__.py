"""The change stream: copies the mapped tables of one PostgreSQL database into another and keeps them equal.

How data passes through: `sources.slot` reads the write-ahead log, `decode.pgoutput` turns its bytes into
messages, `decode.transactions` puts messages together into transactions of `changes.Change`. `pipeline`
(the only loop) hands whole transactions to a sink; `coalesce` folds them per key and `sinks.postgres`
writes them, with the position, in one target transaction. Before the stream, `snapshot` copies what is
already there. `mapping` is the one declaration from which the snapshot, the stream, `verify` and the
reverse direction are derived.

`prepare` makes what a stream needs on both sides, `doctor` says beforehand what would be in the way
(`preflight`: what concerns the mapping), `status`
tells how a running stream does.
"""

from cdc.compiled import STREAM
from chassis.speedups import activate

COMPILED = activate(STREAM)
"""Whether the hot modules (`cdc.compiled`) come from a build."""
