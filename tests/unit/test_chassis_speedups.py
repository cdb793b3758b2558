"""Which build of the hot modules is used: never one that does not belong to the sources."""

import importlib
import subprocess
import sys
from pathlib import Path

import pytest

from cdc.compiled import STREAM
from chassis import speedups
from chassis.speedups import Compiled, SpeedupsError, activate, choose, directory
from strangler_proxy.speedups import PROXY

TOY = Compiled("toy_package", ("hot", "deep.hotter"), trial="toy_package.hot")
BOTH = pytest.mark.parametrize("part", [PROXY, STREAM], ids=lambda part: part.package)


@pytest.fixture
def sources(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A package of our own, in an environment of its own."""
    root = tmp_path / "toy_package"
    (root / "deep").mkdir(parents=True)
    for name in ("__init__.py", "hot.py", "deep/__init__.py", "deep/hotter.py"):
        (root / name).write_text("x = 1\n", encoding="utf-8")
    (tmp_path / "chassis").mkdir()
    (tmp_path / "chassis" / "a.py").write_text("x = 1\n", encoding="utf-8")
    monkeypatch.setattr(speedups, "_CHASSIS", tmp_path / "chassis")
    monkeypatch.setattr(sys, "prefix", str(tmp_path))
    monkeypatch.setattr(sys, "path", [str(tmp_path), *sys.path])
    monkeypatch.delenv(speedups.VARIABLE, raising=False)
    for name in [name for name in sys.modules if name.partition(".")[0] == "toy_package"]:
        monkeypatch.delitem(sys.modules, name)
    importlib.invalidate_caches()
    return tmp_path


def test_a_build_is_found_until_a_source_changes(sources: Path) -> None:
    assert choose(TOY) is None
    directory(TOY).mkdir(parents=True)
    assert choose(TOY) == directory(TOY)
    (sources / "chassis" / "a.py").write_text("x = 2\n", encoding="utf-8")
    assert choose(TOY) is None
    (sources / "chassis" / "a.py").write_text("x = 1\n", encoding="utf-8")
    assert choose(TOY) is not None
    (sources / "toy_package" / "b.py").write_text("", encoding="utf-8")
    assert choose(TOY) is None


@pytest.mark.usefixtures("sources")
def test_off_means_off_and_required_means_there(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(speedups.VARIABLE, "required")
    with pytest.raises(SpeedupsError, match="make speedups"):
        choose(TOY)
    directory(TOY).mkdir(parents=True)
    assert choose(TOY) is not None
    monkeypatch.setenv(speedups.VARIABLE, "off")
    assert choose(TOY) is None
    monkeypatch.setenv(speedups.VARIABLE, "fast")
    with pytest.raises(SpeedupsError, match="auto, off or required"):
        choose(TOY)


@pytest.mark.usefixtures("sources")
def test_a_build_is_used_and_not_chosen_too_late() -> None:
    place = directory(TOY)
    (place / "toy_package" / "deep").mkdir(parents=True)
    (place / "toy_package" / "hot.py").write_text("x = 'built'\n", encoding="utf-8")
    (place / "toy_package" / "deep" / "hotter.py").write_text("x = 'built too'\n", encoding="utf-8")
    assert activate(TOY)
    assert importlib.import_module("toy_package.hot").x == "built"
    assert importlib.import_module("toy_package.deep.hotter").x == "built too"
    assert TOY.root() == place.parents[3] / "toy_package"
    with pytest.raises(SpeedupsError, match="imported before"):
        activate(TOY)


@BOTH
def test_every_compiled_module_exists(part: Compiled) -> None:
    assert [
        name for name in part.modules if not (part.root() / f"{name.replace('.', '/')}.py").is_file()
    ] == []


@BOTH
def test_no_compiled_class_has_a_base_that_is_not_compiled(part: Compiled) -> None:
    """mypyc would build it, and nobody could import it."""
    wrong = [
        f"{name}.{thing.__name__} is a {base.__name__} of {base.__module__}"
        for name in part.names()
        for thing in vars(importlib.import_module(name)).values()
        if isinstance(thing, type) and thing.__module__ == name
        for base in thing.__mro__
        if base.__module__.startswith(f"{part.package}.") and base.__module__ not in part.names()
    ]
    assert wrong == []


@pytest.mark.parametrize(
    ("part", "begin"),
    [
        (PROXY, "from strangler_proxy.speedups import PROXY as part; compiled = activate(part)"),
        (STREAM, "from cdc.compiled import STREAM as part; from cdc import COMPILED as compiled"),
    ],
    ids=["strangler_proxy", "cdc"],
)
def test_the_build_that_is_there_is_the_one_that_runs(part: Compiled, begin: str) -> None:
    """In a process of its own: the hot modules come from the build exactly when there is one."""
    script = (
        f"from chassis.speedups import activate, choose\n{begin}\n"
        f"import {part.names()[-1]} as hot\n"
        "assert compiled == (choose(part) is not None)\n"
        "assert hot.__file__.endswith('.py') != compiled, hot.__file__\n"
    )
    subprocess.run([sys.executable, "-c", script], check=True)
