"""Every check, in the order in which it is told."""

from collections.abc import Sequence

from cdc.doctor.check import Check, TableCheck
from cdc.doctor.debezium import DEBEZIUM_CHECKS
from cdc.doctor.kafka import KAFKA_RULES
from cdc.doctor.mapped import MAPPED_RULES
from cdc.doctor.roles import ROLE_CHECKS
from cdc.doctor.rows import ROW_CHECKS
from cdc.doctor.servers import SERVER_CHECKS
from cdc.doctor.slots import SLOT_CHECKS
from cdc.doctor.tables import TABLE_SHAPE_CHECKS
from cdc.findings import Rule, Severity

UNREACHABLE = Rule(
    "database-unreachable",
    Severity.UNKNOWN,
    "a database cannot be reached, or its session was refused",
    "nothing was checked there",
    "start it, or correct its address, password or pg_hba.conf",
)

CHECKS: Sequence[Check | TableCheck] = (
    *SERVER_CHECKS,
    *SLOT_CHECKS,
    *ROLE_CHECKS,
    *TABLE_SHAPE_CHECKS,
    *ROW_CHECKS,
    *DEBEZIUM_CHECKS,
)

RULES: Sequence[Rule] = (UNREACHABLE, *(check.rule for check in CHECKS), *KAFKA_RULES, *MAPPED_RULES)
"""Every rule, those of `preflight` included. Ids are unique and never change their meaning."""
