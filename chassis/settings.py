"""Settings from environment variables, refused whole with a remedy for each fault.

A service declares one frozen pydantic model. Each field's alias is the name of its variable and its
description says what to set it to:

    class Settings(EnvironmentSettings):
        database_url: str = variable("CATALOG_DATABASE_URL", "PostgreSQL URL of the catalogue's database")

    settings = read(Settings, os.environ)

Values never appear in faults: a database URL holds a password.
"""

from collections.abc import Mapping
from typing import Any, TypeVar

from pydantic import BaseModel, ConfigDict, Field, ValidationError
from pydantic_core import PydanticUndefined

SettingsT = TypeVar("SettingsT", bound="EnvironmentSettings")


class SettingsError(Exception):
    """The environment does not describe a configuration; `faults` holds one sentence for each variable."""

    def __init__(self, faults: tuple[str, ...]) -> None:
        self.faults = faults
        super().__init__("\n".join(faults))


class EnvironmentSettings(BaseModel):
    """Base of a service's settings: frozen, nothing unknown."""

    model_config = ConfigDict(frozen=True, extra="forbid", hide_input_in_errors=True)


def variable(
    name: str, what: str, *, default: Any = PydanticUndefined, secret: bool = False, **limits: Any
) -> Any:
    """A field read from the environment variable `name`; `what` tells a person what to put there.

    Without `default` the variable is required. `secret` keeps the value out of the settings' repr.
    `limits` are pydantic's (`ge`, `pattern`, ...).
    """
    return Field(default=default, validation_alias=name, description=what, repr=not secret, **limits)


def read(model: type[SettingsT], environ: Mapping[str, str]) -> SettingsT:
    """The settings `environ` describes. An empty variable counts as not set.

    Raises SettingsError that names every missing or invalid variable and what to set it to.
    """
    fields = {
        str(field.validation_alias or name): field.description or name
        for name, field in model.model_fields.items()
    }
    given = {name: environ[name] for name in fields if environ.get(name)}
    try:
        return model.model_validate(given)
    except ValidationError as error:
        raise SettingsError(
            tuple(
                _sentence(str(fault["loc"][0]) if fault["loc"] else "", fault["type"], fault["msg"], fields)
                for fault in error.errors(include_url=False, include_input=False, include_context=False)
            )
        ) from None  # the cause would print the values


def _sentence(name: str, kind: str, message: str, fields: Mapping[str, str]) -> str:
    what = fields.get(name, "see the documentation of this service")
    if kind == "missing":
        return f"environment variable {name} is not set: {what}"
    fault = message.removeprefix("Value error, ")
    return f"environment variable {name}: {fault}. Set it to: {what}"
