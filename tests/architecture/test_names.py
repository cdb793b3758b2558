"""Conventions that reviewers would otherwise have to repeat."""

import re
import subprocess
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]

# A file says what it does; these names say that nobody knew where it belongs.
VAGUE = {"utils", "util", "helpers", "helper", "common", "misc", "types", "manager", "managers"}

# What must never reach the repository: hosts of package registries, and places of somebody's machine.
# (Bracketed letters keep this file from naming them itself.)
FOREIGN = re.compile(
    r"python[h]osted|pypi[.]org/|registry[.]npmjs|repo1?[.]maven|deb[.]debian|crates[.]io"
    r"|/roo[t]/|/hom[e]/[a-z]+/"
)

PACKAGES = [
    "monolith",
    "strangler_seam",
    "extracted",
    "strangler_proxy",
    "cdc",
    "migration_plans",
    "chassis",
    "workshop",
]


def _tracked() -> list[Path]:
    listed = subprocess.run(
        ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard"],
        cwd=ROOT, check=True, capture_output=True, text=True,
    )  # fmt: skip
    return [ROOT / name for name in listed.stdout.split("\0") if name and (ROOT / name).is_file()]


def test_files_and_folders_are_named_after_what_they_do() -> None:
    vague = [
        path
        for path in _tracked()
        if path.suffix == ".py" and VAGUE & {path.stem, *path.relative_to(ROOT).parent.parts}
    ]
    assert vague == []


def test_no_registry_host_and_no_place_of_a_machine() -> None:
    found = []
    for path in _tracked():
        try:
            text = path.read_text(encoding="utf-8")
        except UnicodeDecodeError:
            continue
        found += [f"{path.relative_to(ROOT)}: {match.group()}" for match in FOREIGN.finditer(text)]
    assert found == []


def test_the_lock_file_pins_hashes_and_names_no_index() -> None:
    lock = (ROOT / "requirements.lock").read_text(encoding="utf-8")
    assert "://" not in lock
    pins = re.findall(r"^([a-z0-9][a-z0-9._-]*)==", lock, flags=re.MULTILINE)
    assert len(pins) > 40
    for block in re.split(r"\n(?=[a-z0-9])", lock):
        if "==" in block:
            assert "--hash=sha256:" in block, block


# Modules of at most this many lines can be read in one go; the few that are longer must be cut by idea.
@pytest.mark.parametrize("package", PACKAGES)
def test_modules_stay_readable(package: str) -> None:
    long = {
        str(path.relative_to(ROOT)): count
        for path in (ROOT / package).rglob("*.py")
        if "migrations" not in path.parts and (count := path.read_text(encoding="utf-8").count("\n")) > 600
    }
    assert long == {}


@pytest.mark.parametrize("package", PACKAGES)
def test_every_module_begins_with_its_tour(package: str) -> None:
    silent = []
    for path in (ROOT / package).rglob("*.py"):
        text = path.read_text(encoding="utf-8").lstrip()
        if text and "migrations" not in path.parts and not text.startswith(('"""', "#!", 'r"""')):
            silent.append(str(path.relative_to(ROOT)))
    assert silent == []
