"""The doctor's registry, and the rules that no server of a test can break."""

import re
from dataclasses import replace
from pathlib import Path

from cdc.doctor.check import Facts, Subject
from cdc.doctor.kafka import KAFKA_RULES
from cdc.doctor.registry import RULES
from cdc.doctor.servers import judge_clocks, judge_version
from cdc.doctor.tables import judge_key_collation
from cdc.findings import Side
from cdc.mapping import Mapping
from tests.cdc_shop import shop_mapping

SUBJECT = Subject(Mapping(()), "slot", "publication", "role")
# two servers of one machine have one clock, there is one version of PostgreSQL here, and it lacks ICU, without
# which no collation is nondeterministic
JUDGED_HERE = {"clock-skew", "server-version", "key-collation"}


def test_ids_are_unique_and_every_rule_says_why_and_how() -> None:
    ids = [rule.id for rule in RULES]
    assert len(ids) == len(set(ids))
    for rule in RULES:
        assert re.fullmatch(r"[a-z]+(-[a-z]+)+", rule.id)
        assert rule.finds
        assert rule.why
        assert rule.repair


def test_every_rule_is_broken_by_a_test() -> None:
    broken = (Path(__file__).parents[1] / "integration" / "test_doctor_checks.py").read_text(encoding="utf-8")
    assert {rule.id for rule in RULES if f'"{rule.id}"' not in broken} == (
        JUDGED_HERE | {rule.id for rule in KAFKA_RULES}  # test_doctor_command
    )


def test_clocks_may_differ_a_little() -> None:
    def rules(apart: float) -> list[str]:
        facts = Facts(({"now": 1000.0},), ({"now": 1000.0 + apart},))
        return [each.rule for each in judge_clocks(facts, replace(SUBJECT, clock_skew=2.0))]

    assert rules(1.9) == rules(-1.9) == []
    assert rules(2.1) == rules(-2.1) == ["clock-skew"]


def test_old_servers_are_refused() -> None:
    found = list(judge_version(Facts(({"version": 150010},), ({"version": 160000},)), SUBJECT))
    assert [(each.rule, each.place.side) for each in found] == [("server-version", Side.SOURCE)]


def test_keys_that_the_target_calls_equal_are_refused() -> None:
    rows = [
        {"schema": "public", "table": "stock", "column": name, "collation": "vague", "type": "text"}
        for name in ("place", "note")
    ]
    (found,) = judge_key_collation(Facts((), rows), replace(SUBJECT, mapping=shop_mapping()))
    assert (found.rule, found.place.column) == ("key-collation", "place")
    assert found.repair == 'ALTER TABLE "public"."stock" ALTER "place" TYPE text COLLATE "C"'
