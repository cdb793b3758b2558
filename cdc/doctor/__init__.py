"""The doctor: what would be in the way of a migration, found before anything starts.

Each check is one `Rule` (id, severity, why), one query for its facts and one pure function that judges them
(`check`). `servers`, `slots`, `roles`, `tables` and `rows` hold them by theme, `kafka` those about Kafka Connect,
`mapped` the rules about the mapping itself, which `preflight` checks. `registry` lists all; `examine` is the only
part that talks to servers; `page` writes the reference from the registry.
"""
