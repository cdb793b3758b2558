"""Where one workshop keeps its things, which ports it uses, what it is filled with: values, no behaviour."""

from collections.abc import Mapping
from dataclasses import dataclass, fields, replace
from pathlib import Path
from typing import Self

from workshop.postgres import free_port


@dataclass(frozen=True, slots=True)
class Layout:
    """The files of a workshop below its directory `var`."""

    var: Path

    @property
    def logs(self) -> Path:
        """One log for each process."""
        return self.var / "log"

    @property
    def run(self) -> Path:
        """What exists only while it runs, and the secrets."""
        return self.var / "run"

    @property
    def postgres(self) -> Path:
        """Data of the embedded PostgreSQL (as root: its stand-in, see workshop.postgres)."""
        return self.var / "postgres"

    @property
    def secrets(self) -> Path:
        """Generated passwords, mode 0600."""
        return self.run / "secrets.json"

    @property
    def environment(self) -> Path:
        """Variables for a shell that talks to the stack, mode 0600."""
        return self.run / "stack.env"

    @property
    def lock(self) -> Path:
        """Held by the supervisor as long as it lives; its text is the supervisor's process id."""
        return self.run / "supervisor.pid"

    @property
    def state(self) -> Path:
        """What the background supervisor last said of itself."""
        return self.run / "state.json"

    @property
    def routes(self) -> Path:
        """A routes file derived for ports or options that the given one does not have."""
        return self.var / "routes.yaml"

    def log(self, name: str) -> Path:
        """The log of the process `name`."""
        return self.logs / f"{name}.log"


@dataclass(frozen=True, slots=True)
class Ports:
    """Loopback ports. `postgres` is not used with a server of your own."""

    proxy: int = 8000
    admin: int = 8010
    monolith: int = 8001
    catalog: int = 8101
    postgres: int = 5440

    @classmethod
    def free(cls, **chosen: int | None) -> Self:
        """Ports that are free now, save those `chosen`."""
        names = [field.name for field in fields(cls)]
        return cls(**{name: chosen.get(name) or free_port() for name in names})

    def with_chosen(self, chosen: Mapping[str, int | None]) -> Self:
        """These ports, with those of `chosen` that are not None in their place."""
        return replace(self, **{name: port for name, port in chosen.items() if port is not None})

    def as_dict(self) -> dict[str, int]:
        """Port by purpose."""
        return {field.name: getattr(self, field.name) for field in fields(self)}


@dataclass(frozen=True, slots=True)
class Seed:
    """How much the shop is filled with, and the seed all of it is drawn from."""

    products: int = 2_000
    users: int = 500
    orders: int = 1_000
    seed: int = 1
