"""The data path compiled to C by mypyc: built where there is a C compiler, used where the build fits.

    python -m strangler_proxy.speedups             builds (about half a minute)
    python -m strangler_proxy.speedups --check     ends with 0 when there is a build for these sources

The build lies outside the sources, in the environment, in a directory named after a digest of all sources it
could depend on and of the interpreter. One edited byte and the name is another one: a build that does not
belong to the sources is never found, so it cannot shadow them. Then, and without any build, the same files
run as Python; what they do is the same, only slower.

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
from pathlib import Path

import strangler_proxy

VARIABLE = "STRANGLER_SPEEDUPS"
# What runs for every request. The rest is imported by these as it is: frozen values that travel pickled
# (table, breaker) and what features are made of (duties).
MODULES = (
    "account", "answers", "buckets", "clients", "decide", "downstream", "exchange", "headers", "identity", "outcomes",
    "phase", "plane", "recognise", "replying", "request", "upstream",
)  # fmt: skip
_PACKAGE = Path(strangler_proxy.__file__).resolve().parent
_CHASSIS = _PACKAGE.parent / "chassis"
_SETUP = """\
from mypyc.build import mypycify
from setuptools import setup

flags = ["--ignore-missing-imports", "--explicit-package-bases"]
extensions = mypycify([*flags, *{files!r}], opt_level="3", debug_level="1")
setup(name="speedups", packages=[], ext_modules=extensions)
"""


class SpeedupsError(Exception):
    """The compiled data path cannot be built or used: what is wrong, and what to do."""

    def __init__(self, fault: str, remedy: str) -> None:
        self.fault = fault
        self.remedy = remedy
        super().__init__(f"{fault} ({remedy})")


def directory() -> Path:
    """Where the build for the present sources lies, if there is one."""
    digest = hashlib.sha256(f"{sys.implementation.cache_tag} {platform.platform()}".encode())
    for root in (_PACKAGE, _CHASSIS):
        for path in sorted(root.rglob("*.py")):
            digest.update(b"%b\0%b\0" % (str(path.relative_to(root)).encode(), path.read_bytes()))
    return Path(sys.prefix) / "lib" / "strangler-speedups" / digest.hexdigest()[:16]


def choose() -> Path | None:
    """The build to use, None for plain Python. Raises SpeedupsError when one is required and not there."""
    wish = os.environ.get(VARIABLE, "auto")
    if wish not in ("auto", "off", "required"):
        raise SpeedupsError(f"{VARIABLE} is {wish!r}", "set it to auto, off or required")
    if wish == "off":
        return None
    place = directory()
    if place.is_dir():
        return place
    if wish == "required":
        raise SpeedupsError("there is no build for these sources", "run make speedups")
    return None


def activate() -> bool:
    """Let the modules of the data path be imported from the build, when there is one to use; is there? Call it
    before the first of them is imported.

    Raises SpeedupsError when a build is required and not there, or when it is too late.
    """
    place = choose()
    if place is None:
        return False
    early = [name for name in MODULES if f"strangler_proxy.{name}" in sys.modules]
    if early:
        raise SpeedupsError(f"imported before the build was chosen: {', '.join(early)}", "activate earlier")
    _use(place)
    return True


def _use(place: Path) -> None:
    sys.path.append(str(place))  # the code of all modules is one library, which they import by its name
    strangler_proxy.__path__.insert(0, str(place / "strangler_proxy"))


def build() -> Path:
    """Compile, and put the result where `activate` finds it; older builds go. Raises SpeedupsError."""
    place = directory()
    if place.is_dir():
        return place
    with tempfile.TemporaryDirectory() as name:
        work = Path(name)
        for root in (_PACKAGE, _CHASSIS):
            shutil.copytree(root, work / root.name, ignore=shutil.ignore_patterns("__pycache__"))
        files = [f"strangler_proxy/{module}.py" for module in MODULES]
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
        _try(staging)
        staging.rename(place)
    return place


def _try(staging: Path) -> None:
    """Does a worker come up with it? What compiles need not import: a compiled class whose base is not compiled."""
    code = "import sys; from pathlib import Path; from strangler_proxy import speedups\n"
    code += "speedups._use(Path(sys.argv[1])); import strangler_proxy.worker"
    tried = subprocess.run(
        [sys.executable, "-c", code, str(staging)],
        env=os.environ | {"PYTHONPATH": str(_PACKAGE.parent)}, capture_output=True, text=True, check=False,
    )  # fmt: skip
    if tried.returncode:
        raise SpeedupsError(
            f"what was compiled cannot be imported:\n{tried.stderr}",
            "a class in MODULES may derive from one that is not",
        )


def main(arguments: Sequence[str]) -> int:
    """Build, or with `--check` only tell whether there is a build; the exit code. `--quiet` says nothing of
    a success."""
    if "--check" in arguments:
        return 0 if directory().is_dir() else 1
    try:
        place = build()
    except SpeedupsError as error:
        sys.stderr.write(f"{error}\n")
        return 1
    if "--quiet" not in arguments:
        sys.stdout.write(f"compiled into {place}\n")
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
