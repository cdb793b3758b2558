"""Which modules of the change stream are compiled, where there is a build (`chassis.speedups`): the way of a row
from the log to the statement that writes it. `cdc/__init__.py` chooses the build, so whatever runs a stream has it.
"""

from chassis.speedups import Compiled

# What runs for every row. `changes` stays Python: its values are made everywhere, and mypyc has no subclass of int.
STREAM = Compiled(
    "cdc",
    (
        "assembly",
        "coalesce",
        "copytext",
        "decode.debezium",
        "decode.debezium_times",
        "decode.debezium_values",
        "decode.frames",
        "decode.pgoutput",
        "decode.pgtext",
        "decode.transactions",
    ),
    trial="cdc.pipeline",
)
