"""Errors to exit codes: by name, so that a verb does not import what it never calls."""

import subprocess
import sys
from importlib import import_module

import pytest

from migration_plans.cli.exits import CODES, ExitCode, Told, describe


@pytest.mark.parametrize("name", CODES)
def test_each_name_is_that_of_an_exception_where_it_is_defined(name: str) -> None:
    module, _, kind = name.partition(":")
    found = getattr(import_module(module), kind)
    assert issubclass(found, Exception)
    assert (found.__module__, found.__qualname__) == (module, kind)
    told = describe(found.__new__(found))  # what each is made from is its own affair
    assert told is not None
    assert told.code == CODES[name]


def test_what_derives_from_an_expected_error_has_its_code() -> None:
    from migration_plans.ledger import ConflictError

    class NarrowerError(ConflictError):
        pass

    assert describe(NarrowerError("why")) == Told(ExitCode.CONFLICT, "why")
    assert describe(ExceptionGroup("one", [NarrowerError("why")])) == Told(ExitCode.CONFLICT, "why")
    assert describe(ValueError("nobody expected that")) is None


def test_the_command_line_itself_imports_no_part_of_the_product() -> None:
    heavy = ("psycopg", "pydantic", "httpx", "strangler_proxy", "cdc", "migration_plans.plan")
    look = f"import sys, migration_plans.cli; print([name for name in {heavy} if name in sys.modules])"
    said = subprocess.run([sys.executable, "-c", look], capture_output=True, text=True, check=True)
    assert said.stdout.strip() == "[]"
