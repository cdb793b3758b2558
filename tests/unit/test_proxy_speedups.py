"""Which build of the data path is used: never one that does not belong to the sources."""

import importlib
import subprocess
import sys
from pathlib import Path

import pytest

from strangler_proxy import headers, speedups
from strangler_proxy.speedups import SpeedupsError


@pytest.fixture
def sources(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Sources of our own, in an environment of their own."""
    for name in ("strangler_proxy", "chassis"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "a.py").write_text("x = 1\n", encoding="utf-8")
    monkeypatch.setattr(speedups, "_PACKAGE", tmp_path / "strangler_proxy")
    monkeypatch.setattr(speedups, "_CHASSIS", tmp_path / "chassis")
    monkeypatch.setattr(sys, "prefix", str(tmp_path))
    monkeypatch.delenv(speedups.VARIABLE, raising=False)
    return tmp_path


def test_a_build_is_found_until_a_source_changes(sources: Path) -> None:
    assert speedups.choose() is None
    speedups.directory().mkdir(parents=True)
    assert speedups.choose() == speedups.directory()
    (sources / "chassis" / "a.py").write_text("x = 2\n", encoding="utf-8")
    assert speedups.choose() is None
    (sources / "chassis" / "a.py").write_text("x = 1\n", encoding="utf-8")
    assert speedups.choose() is not None
    (sources / "strangler_proxy" / "b.py").write_text("", encoding="utf-8")
    assert speedups.choose() is None


@pytest.mark.usefixtures("sources")
def test_off_means_off_and_required_means_there(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(speedups.VARIABLE, "required")
    with pytest.raises(SpeedupsError, match="make speedups"):
        speedups.choose()
    speedups.directory().mkdir(parents=True)
    assert speedups.choose() is not None
    monkeypatch.setenv(speedups.VARIABLE, "off")
    assert speedups.choose() is None
    monkeypatch.setenv(speedups.VARIABLE, "fast")
    with pytest.raises(SpeedupsError, match="auto, off or required"):
        speedups.choose()


@pytest.mark.usefixtures("sources")
def test_a_build_is_not_chosen_too_late() -> None:
    assert headers.__name__ in sys.modules
    speedups.directory().mkdir(parents=True)
    with pytest.raises(SpeedupsError, match="imported before"):
        speedups.activate()


def test_every_compiled_module_exists() -> None:
    package = Path(speedups.__file__).parent
    assert [name for name in speedups.MODULES if not (package / f"{name}.py").is_file()] == []


def test_no_compiled_class_has_a_base_that_is_not_compiled() -> None:
    """mypyc would build it, and no worker could import it."""
    compiled = {f"strangler_proxy.{name}" for name in speedups.MODULES}
    wrong = [
        f"{name}.{thing.__name__} is a {base.__name__} of {base.__module__}"
        for name in compiled
        for thing in vars(importlib.import_module(name)).values()
        if isinstance(thing, type) and thing.__module__ == name
        for base in thing.__mro__
        if base.__module__.startswith("strangler_proxy.") and base.__module__ not in compiled
    ]
    assert wrong == []


def test_the_build_that_is_there_is_the_one_that_runs() -> None:
    """In a process of its own: the hot modules come from the build exactly when there is one."""
    script = (
        "from strangler_proxy import speedups\n"
        "compiled = speedups.activate()\n"
        "from strangler_proxy import exchange\n"
        "assert compiled == (speedups.choose() is not None)\n"
        "assert exchange.__file__.endswith('.py') != compiled, exchange.__file__\n"
    )
    subprocess.run([sys.executable, "-c", script], check=True)
