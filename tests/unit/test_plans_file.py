"""Plan files: what is refused, at which line; what overrides do; what the editor's schema says."""

import json
from collections.abc import Callable
from decimal import Decimal
from pathlib import Path

import pytest

from chassis.problems import InvalidFileError
from migration_plans import examples
from migration_plans.plan import Plan, json_schema, load_plan
from migration_plans.quantities import format_bytes, format_seconds, parse_duration, parse_share, parse_size
from migration_plans.stages import Kind

ROOT = Path(__file__).parents[2]


def loaded(directory: Path, text: str = examples.PLAN, **options: object) -> Plan:
    return load_plan(examples.write(directory, plan=text), **options)  # type: ignore[arg-type]  # options of load_plan


def refused(directory: Path, text: str, **options: object) -> InvalidFileError:
    with pytest.raises(InvalidFileError) as caught:
        loaded(directory, text, **options)
    return caught.value


def line_of(text: str, part: str) -> int:
    return next(number for number, line in enumerate(text.splitlines(), start=1) if part in line)


def test_the_shops_plan_is_legal_and_offline_complete() -> None:
    plan = load_plan(ROOT / "migration_plans/plans/catalog.yaml")
    assert plan.stage_names == (
        "prepare", "snapshot", "stream", "ramp 10", "ramp 25", "ramp 50", "ramp 75", "ramp 100",
    )  # fmt: skip
    assert plan.routes == ROOT / "routes.yaml"
    assert plan.limits.error_rate == 0.05
    assert plan.retry.auto


def test_values_are_in_base_units(tmp_path: Path) -> None:
    text = (
        examples.PLAN.replace("{ramp: 10}", "{ramp: 12.5, soak: 2m, max_lag_bytes: 64KiB}")
        + "rollback: {error_rate: 5%, retry: {auto: true, after: 1h}}\n"
    )
    plan = loaded(tmp_path, text)
    ramp = plan.stages[3]
    assert (ramp.stage.kind, ramp.stage.percent, ramp.stage.name) == (Kind.RAMP, Decimal("12.5"), "ramp 12.5")
    assert (ramp.policy.soak, ramp.policy.max_lag_bytes, ramp.policy.min_requests) == (120.0, 65536, 10)
    assert plan.stages[4].policy.soak == 0.0
    assert (plan.limits.error_rate, plan.retry.after) == (0.05, 3600.0)


Change = Callable[[str], str]
FAULTS: dict[str, tuple[str, str, str, str]] = {
    "unknown key": ("stages:", "stagse: 1\nstages:", "stagse: 1", "unknown key 'stagse'"),
    "unknown key in a stage": ("{ramp: 10}", "{ramp: 10, soack: 3s}", "soack", "unknown key 'soack'"),
    "percent 101": ("{ramp: 100}", "{ramp: 101}", "{ramp: 101}", "percentage above 0 and up to 100"),
    "percent too fine": ("{ramp: 10}", "{ramp: 0.001}", "0.001", "steps of 0.01"),
    "duration": ("soak: 0s", "soak: 5 apples", "5 apples", "not a duration"),
    "missing key": ("group: catalog\n", "", "version: 1", "missing key 'group'"),
    "version": ("version: 1", "version: 2", "version: 2", "1"),
    "two stages in one": ("{ramp: 10}", "{ramp: 10, stage: stream}", "stage: stream", "prepare, snapshot or stream"),
    "ramp that falls": ("{ramp: 25}", "{ramp: 5}", "{ramp: 5}", "does not rise"),
    "ramp before stream": ("snapshot, stream, ", "snapshot, ", "stages:", "cannot follow snapshot"),
    "no prepare": ("[prepare, ", "[", "stages:", "the first stage is prepare"),
    "same key twice": ("group: catalog\n", "group: catalog\ngroup: other\n", "group: other", "duplicate key"),
    "mapping without key": ("key: {item_id: id}", "key: {}", "key: {}", "key"),
    "alert with two targets": (
        "gates:", "alerts: [{log: true, webhook_env: HOOK}]\ngates:", "webhook_env: HOOK", "exactly one of",
    ),
    "variable name": ("SHOP_CDC_DSN", "shop-cdc", "shop-cdc", "pattern"),
}  # fmt: skip


@pytest.mark.parametrize("name", FAULTS)
def test_every_fault_is_named_by_file_line_and_what_to_do(tmp_path: Path, name: str) -> None:
    before, after, where, message = FAULTS[name]
    text = examples.PLAN.replace(before, after)
    assert text != examples.PLAN
    error = refused(tmp_path, text)
    assert any(message in str(problem) for problem in error.problems), str(error)
    problem = next(problem for problem in error.problems if message in str(problem))
    assert problem.file == str(tmp_path / "plan.yaml")
    assert problem.line == line_of(text, where) or name == "missing key", str(problem)


def test_all_faults_are_named_at_once(tmp_path: Path) -> None:
    text = (
        examples.PLAN.replace("soak: 0s", "soak: x")
        .replace("{ramp: 10}", "{ramp: 0}")
        .replace("title: name", "title: ''")
    )
    error = refused(tmp_path, text)
    fields = {problem.field.split(".")[0] for problem in error.problems}
    assert fields == {"gates", "stages", "tables"}


def test_settings_and_second_file_lie_over_the_plan(tmp_path: Path) -> None:
    override = tmp_path / "demo.yaml"
    override.write_text("gates:\n  soak: 4s\n  min_requests: 7\n", encoding="utf-8")
    plan = loaded(tmp_path, override=override, settings=["gates.soak=5s", "rollback.retry.auto=true"])
    assert (plan.stages[3].policy.soak, plan.stages[3].policy.min_requests) == (5.0, 7)
    assert plan.retry.auto
    assert plan.digest != loaded(tmp_path).digest


def test_faults_of_overrides_are_placed_where_they_were_written(tmp_path: Path) -> None:
    override = tmp_path / "demo.yaml"
    override.write_text("# for the demo\ngates:\n  soak: soon\n", encoding="utf-8")
    (problem,) = refused(tmp_path, examples.PLAN, override=override).problems
    assert (problem.file, problem.line) == (str(override), 3)
    (problem,) = refused(tmp_path, examples.PLAN, settings=["gates.soak=soon"]).problems
    assert str(problem).startswith("--set gates.soak=soon: gates.soak: not a duration")
    (problem,) = refused(tmp_path, examples.PLAN, settings=["nonsense"]).problems
    assert "NAME=VALUE" in problem.message
    (problem,) = refused(tmp_path, examples.PLAN, settings=["name.x=1"]).problems
    assert "not a mapping" in problem.message


def test_published_schema_is_the_models(tmp_path: Path) -> None:
    page = ROOT / "docs/reference/plan.schema.json"
    assert json.loads(page.read_text(encoding="utf-8")) == json_schema(), "strangler plan schema > " + str(
        page
    )
    properties = json_schema()["properties"]
    assert set(properties) >= {
        "version",
        "name",
        "group",
        "routes",
        "databases",
        "tables",
        "stages",
        "gates",
        "rollback",
    }


@pytest.mark.parametrize(
    ("text", "seconds"),
    [("250ms", 0.25), ("30s", 30), ("1.5m", 90), ("2h", 7200), ("1d", 86400), (4, 4), ("0s", 0)],
)
def test_durations(text: object, seconds: float) -> None:
    assert parse_duration(text) == pytest.approx(seconds)


@pytest.mark.parametrize("text", ["", "s", "-1s", "5", "5 weeks", True, None, -3, [1]])
def test_what_is_no_duration(text: object) -> None:
    with pytest.raises(ValueError, match="not a duration"):
        parse_duration(text)


@pytest.mark.parametrize(("text", "size"), [("16MB", 16_000_000), ("1KiB", 1024), ("7 B", 7), (12, 12)])
def test_sizes(text: object, size: int) -> None:
    assert parse_size(text) == size


@pytest.mark.parametrize("text", ["16", "MB", "1TB", True, 1.5])
def test_what_is_no_size(text: object) -> None:
    with pytest.raises(ValueError, match="not a size"):
        parse_size(text)


@pytest.mark.parametrize(
    ("text", "share"), [("5%", 0.05), ("0.1 %", 0.001), (0.3, 0.3), ("100%", 1.0), (0, 0.0)]
)
def test_shares(text: object, share: float) -> None:
    assert parse_share(text) == share


@pytest.mark.parametrize("text", ["101%", "5", 2, -0.1, True])
def test_what_is_no_share(text: object) -> None:
    with pytest.raises(ValueError, match="not a share"):
        parse_share(text)


def test_quantities_for_people() -> None:
    assert [format_seconds(value) for value in (0.25, 4.2, 60, 200, 7500)] == [
        "250 ms", "4.2 s", "1 min", "3 min 20 s", "2 h 5 min",
    ]  # fmt: skip
    assert [format_bytes(value) for value in (812, 16_400, 2_100_000, 3_000_000_000)] == [
        "812 B", "16.4 kB", "2.1 MB", "3.0 GB",
    ]  # fmt: skip
