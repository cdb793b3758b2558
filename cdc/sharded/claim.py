"""How far a stream over several partitions has come on the source. Pure.

    L := what Connect says is delivered (its committed offset's `lsn_commit`)        first
    E := the end offset of every partition                                          then
    every stored offset ≥ E   ⇒   every change that committed at or before L is in the target

Proof. Connect commits a source offset only when every record up to the one that bears it is acknowledged by the
brokers (`SubmittedRecords`, KAFKA-12226, in the order in which the connector handed them over), and the offset's
`lsn_commit` is the end of the last commit that lies before that record. So when L is read, each record of a
transaction that committed at or before L is acknowledged. A broker acknowledges what is below the high watermark
(`acks=all`), and an end offset is the high watermark; read later it is not less. So each of these records lies before
E in its partition. A partition's offset is stored in the target transaction that writes its rows, hence a stored
offset ≥ E has them all, and stored offsets never fall. ∎

The slot's `confirmed_flush_lsn` would not do: Debezium confirms what the *last acknowledged* record says, and with
several partitions acknowledgements overtake each other.
"""

from collections.abc import Mapping
from dataclasses import dataclass

from cdc.changes import Lsn


@dataclass(frozen=True, slots=True)
class Claim:
    """`position` is reached once each partition's stored offset is at least its end in `ends`."""

    position: Lsn
    ends: Mapping[int, int]

    def holds(self, stored: Mapping[int, int]) -> bool:
        """Whether the stored offsets bear it out; a partition that is not known does not."""
        return all(stored.get(partition, -1) >= end for partition, end in self.ends.items())


def partition_stream(stream: str, partition: int) -> str:
    """The name under which the target knows one partition. No slot's name has a slash."""
    return f"{stream}/{partition}"


def partition_of(stream: str, name: str) -> int | None:
    """The partition of `stream` that is called `name`; None when it is none."""
    head, slash, tail = name.partition("/")
    return int(tail) if slash and head == stream and tail.isdecimal() else None
