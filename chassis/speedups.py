"""Hot modules compiled to C by mypyc: built where there is a C compiler, used where the build fits.

    python -m strangler_proxy.speedups             builds the proxy's (about half a minute)
    python -m cdc.speedups                         builds the change stream's
    python -m cdc.speedups --check                 ends with 0 when there is a build for these sources

A package says which of its modules are hot (`Compiled`). The build lies outside the sources, in the environment,
in a directory named after a digest of all sources it could depend on and of the interpreter. One edited byte and
the name is another one: a build that does not belong to the sources is never found, so it cannot shadow them.
Then, and without any build, the same files run as Python; what they do is the same, only slower.

`STRANGLER_SPEEDUPS` chooses: `auto` (the default: compiled when there is a build), `off`, or `required` (no
build is an error).
"""

import hashlib
import os
import platform
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path

VARIABLE = "STRANGLER_SPEEDUPS"
_CHASSIS = Path(__file__).resolve().parent
_SETUP = """\
from mypyc.build import mypycify
from setuptools import setup

flags = ["--ignore-missing-imports", "--explicit-package-bases"]
extensions = mypycify([*flags, *{files!r}], opt_level="3", debug_level="1")
setup(name="speedups", packages=[], ext_modules=extensions)
"""


class SpeedupsError(Exception):
    """Compiled modules cannot be built or used: what is wrong, and what to do."""

    def __init__(self, fault: str, remedy: str) -> None:
        self.fault = fault
        self.remedy = remedy
        super().__init__(f"{fault} ({remedy})")


@dataclass(frozen=True, slots=True)
class Compiled:
    """The hot modules of `package`, dotted below it. A build is good when `trial` can be imported with it."""

    package: str
    modules: tuple[str, ...]
    trial: str

    def names(self) -> tuple[str, ...]:
        """The modules' full names."""
        return tuple(f"{self.package}.{module}" for module in self.modules)

    def root(self) -> Path:
        """Where the sources are."""
        found = find_spec(self.package)
        assert found is not None, f"{self.package} cannot be imported"
        assert found.submodule_search_locations, f"{self.package} is no package"
        # the last one: a build that is in use stands before the sources
        return Path(list(found.submodule_search_locations)[-1]).resolve()


def directory(part: Compiled) -> Path:
    """Where the build for the present sources lies, if there is one."""
    digest = hashlib.sha256(f"{sys.implementation.cache_tag} {platform.platform()}".encode())
    for root in (part.root(), _CHASSIS):
        for path in sorted(root.rglob("*.py")):
            digest.update(b"%b\0%b\0" % (str(path.relative_to(root)).encode(), path.read_bytes()))
    return _builds(part) / digest.hexdigest()[:16]


def _builds(part: Compiled) -> Path:
    return Path(sys.prefix) / "lib" / "strangler-speedups" / part.package


def choose(part: Compiled) -> Path | None:
    """The build to use, None for plain Python. Raises SpeedupsError when one is required and not there."""
    wish = os.environ.get(VARIABLE, "auto")
    if wish not in ("auto", "off", "required"):
        raise SpeedupsError(f"{VARIABLE} is {wish!r}", "set it to auto, off or required")
    if wish == "off":
        return None
    if _builds(part).is_dir() and (place := directory(part)).is_dir():
        return place
    if wish == "required":
        raise SpeedupsError(f"there is no build of {part.package} for these sources", "run make speedups")
    return None


def activate(part: Compiled) -> bool:
    """Let the hot modules be imported from the build, when there is one to use; is there? Call it before the
    first of them is imported.

    Raises SpeedupsError when a build is required and not there, or when it is too late.
    """
    place = choose(part)
    if place is None:
        return False
    early = [name for name in part.names() if name in sys.modules]
    if early:
        raise SpeedupsError(f"imported before the build was chosen: {', '.join(early)}", "activate earlier")
    use(part, place)
    return True


def use(part: Compiled, place: Path) -> None:
    """Import the hot modules from `place`, whatever it is. Their packages are imported now."""
    sys.path.append(str(place))  # the code of all modules is one library, which they import by its name
    for package in sorted({name.rpartition(".")[0] for name in part.names()}):
        __import__(package)
        sys.modules[package].__path__.insert(0, str(place / package.replace(".", "/")))


def build(part: Compiled) -> Path:
    """Compile, and put the result where `activate` finds it; older builds go. Raises SpeedupsError."""
    place = directory(part)
    if place.is_dir():
        return place
    root = part.root()
    with tempfile.TemporaryDirectory() as name:
        work = Path(name)
        for source in (root, _CHASSIS):
            shutil.copytree(source, work / source.name, ignore=shutil.ignore_patterns("__pycache__"))
        files = [f"{module.replace('.', '/')}.py" for module in part.names()]
        (work / "setup.py").write_text(_SETUP.format(files=files), encoding="utf-8")
        done = subprocess.run(
            [sys.executable, "setup.py", "-q", "build_ext", "--build-lib", "out"],
            cwd=work, capture_output=True, text=True, check=False,
        )  # fmt: skip
        if done.returncode:
            raise SpeedupsError(
                f"mypyc or the C compiler failed:\n{done.stdout}\n{done.stderr}",
                "install a C compiler and the development group of pyproject.toml; without them it runs as Python",
            )
        shutil.rmtree(place.parent, ignore_errors=True)
        place.parent.mkdir(parents=True)
        # Moved whole: an interrupted build is never taken for one.
        staging = place.with_suffix(".new")
        shutil.copytree(work / "out", staging)
        _try(part, staging)
        staging.rename(place)
    return place


def _try(part: Compiled, staging: Path) -> None:
    """Can it be imported? What compiles need not be: a compiled class whose base is not compiled."""
    code = (
        "import sys; from pathlib import Path; from chassis.speedups import Compiled, use\n"
        f"use({part!r}, Path(sys.argv[1])); import {part.trial}"
    )
    tried = subprocess.run(
        [sys.executable, "-c", code, str(staging)],
        env=os.environ | {"PYTHONPATH": f"{part.root().parent}{os.pathsep}{_CHASSIS.parent}", VARIABLE: "off"},
        capture_output=True, text=True, check=False,
    )  # fmt: skip
    if tried.returncode:
        raise SpeedupsError(
            f"what was compiled cannot be imported:\n{tried.stderr}",
            "a class in a compiled module may derive from one that is not",
        )


def main(part: Compiled, arguments: Sequence[str]) -> int:
    """Build, or with `--check` only tell whether there is a build; the exit code. `--quiet` says nothing of
    a success."""
    if "--check" in arguments:
        return 0 if directory(part).is_dir() else 1
    try:
        place = build(part)
    except SpeedupsError as error:
        sys.stderr.write(f"{error}\n")
        return 1
    if "--quiet" not in arguments:
        sys.stdout.write(f"compiled into {place}\n")
    return 0
