"""A stream over several partitions of a topic, applied by one instance or many.

    run ──► begin (once: snapshot, connector, a position for each partition) ──► group ──► a lane for each partition
                                                                              └─► keeper (whoever has partition 0)

`order` and `claim` are the pure cores: what comes again, and how far the whole stream has come. `lane` applies one
partition, `group` shares the partitions out, `keeper` stores the stream's own position. Why like this:
docs/adr/0012-many-partitions-are-many-streams.md.
"""
