"""Faults in YAML files are found all at once, each with its line."""

from pathlib import Path

import pytest
from pydantic import BaseModel, ConfigDict, ValidationError

from chassis import yamlfile
from chassis.problems import InvalidFileError, Problem


class Door(BaseModel):
    model_config = ConfigDict(extra="forbid")
    width: int
    colour: str


def test_each_fault_names_its_line() -> None:
    data, places = yamlfile.parse("door:\n  width: wide\n  height: 3\n", "doors.yaml")
    with pytest.raises(ValidationError) as caught:
        Door.model_validate(data["door"])
    found = places.problems_of(caught.value, ("door",))
    assert [(p.line, p.field) for p in found] == [(2, "door.width"), (1, "door.colour"), (3, "door.height")]
    assert "unknown key 'height'" in found[2].message
    assert str(found[1]).startswith("doors.yaml:1: door.colour: missing key 'colour'")


@pytest.mark.parametrize(
    ("text", "line"),
    [("a: 1\na: 2\n", 2), ("a: [1, 2\nb: 3\n", 2), ("a: 'x\n", 2), ("a:\n\t- 1\n", 2)],
    ids=["duplicate key", "unclosed list", "unclosed quote", "tab"],
)
def test_what_is_not_yaml_is_refused_at_its_line(text: str, line: int) -> None:
    with pytest.raises(InvalidFileError) as caught:
        yamlfile.parse(text, "broken.yaml")
    (problem,) = caught.value.problems
    assert problem.file == "broken.yaml"
    assert problem.line == line


def test_a_file_that_cannot_be_read_is_a_fault_not_a_crash(tmp_path: Path) -> None:
    with pytest.raises(InvalidFileError) as caught:
        yamlfile.load(tmp_path / "absent.yaml")
    assert "No such file" in caught.value.problems[0].message


def test_values_are_plain_and_places_fall_back_to_the_parent() -> None:
    data, places = yamlfile.parse("a:\n  - 1\n  - {b: true, c: 1.50, d: 'x'}\n", "x.yaml")
    assert data == {"a": [1, {"b": True, "c": 1.5, "d": "x"}]}
    assert type(data["a"][1]["c"]) is float
    assert places.at(("a", 1, "c")) == (3, 15)
    assert places.at(("a", 7, "nothing")) == (1, 1)
    assert places.problem(("a", 1), "odd") == Problem("x.yaml", 3, 5, "a.1", "odd", "")


BOMB = "a: &a [1]\n" + "".join(
    f"{b}: &{b} [*{a}, *{a}, *{a}]\n" for a, b in zip("abcdefghij", "bcdefghijk", strict=True)
)


@pytest.mark.parametrize(
    ("text", "line", "said"),
    [
        ("base: &base {x: 1}\nother:\n  <<: *base\n", 3, "alias *base"),
        (BOMB, 2, "alias *a"),
        ("[" * 100_000, 1, "deeper than"),
        ("a: 1\n" * 200_001, 0, "at most 1000000"),
    ],
    ids=["merge", "alias bomb", "deep nesting", "huge"],
)
def test_what_would_unfold_is_refused_before_it_does(text: str, line: int, said: str) -> None:
    with pytest.raises(InvalidFileError) as caught:
        yamlfile.parse(text, "bomb.yaml")
    (problem,) = caught.value.problems
    assert problem.line == line
    assert said in problem.message
