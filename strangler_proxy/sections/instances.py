"""Where a backend is: `url`, or several `instances`, or `discover`; and `health` to watch them.

    catalog:
      instances: [http://127.0.0.1:8101, http://127.0.0.1:8102]
      health: {path: /health, every: 2000, timeout: 1000, down_after: 3, up_after: 2, slow_start: 0}

    catalog:
      discover: {file: instances.yaml}                  # a YAML or JSON list of URLs, followed
      discover: {dns: "catalog.internal:8101", every: 5000}
      discover: {environment: CATALOG}                  # URLs with commas between them, or Kubernetes' variables

Durations are milliseconds.
"""

import re
from typing import Annotated, Self
from urllib.parse import urlsplit

from pydantic import AfterValidator, Field, model_validator

from strangler_proxy.cluster.several import (
    Address,
    FromDns,
    FromEnvironment,
    FromFile,
    HealthPolicy,
    Several,
    Source,
)
from strangler_proxy.sections.fields import Milliseconds, Strict, Url, address_of, is_tls
from strangler_proxy.sections.tls import BackendTlsFile
from strangler_proxy.tls import BackendTls

_VARIABLE = re.compile(r"[A-Za-z_][A-Za-z0-9_]*")
_TARGET = re.compile(r"/[!-~]*")


def _variable(value: str) -> str:
    if not _VARIABLE.fullmatch(value):
        raise ValueError("a variable's name has letters, digits and _, and begins with no digit")
    return value


def _host_port(value: str) -> str:
    try:
        parts = urlsplit(f"//{value}")
        named = bool(parts.hostname and parts.port and parts.netloc == value and "@" not in value)
    except ValueError:
        named = False
    if not named:
        raise ValueError("write HOST:PORT, as catalog.internal:8101")
    return value


def _target(value: str) -> str:
    if not _TARGET.fullmatch(value) or "#" in value:
        raise ValueError("a path begins with / and holds visible ASCII characters (percent-encode others)")
    return value


class DiscoverFile(Strict):
    """Exactly one of `file`, `dns` and `environment`."""

    file: Annotated[str, Field(min_length=1)] | None = None
    dns: Annotated[str, AfterValidator(_host_port)] | None = None
    every: Milliseconds | None = None
    environment: Annotated[str, AfterValidator(_variable)] | None = None

    @model_validator(mode="after")
    def _one(self) -> Self:
        if sum(source is not None for source in (self.file, self.dns, self.environment)) != 1:
            raise ValueError("discover needs one of file, dns and environment")
        if self.every is not None and (self.dns is None or self.every < 100):
            raise ValueError("every belongs to dns and is at least 100 (a file is followed by itself)")
        return self

    def value(self) -> Source:
        """The frozen value."""
        if self.file is not None:
            return FromFile(self.file)
        if self.dns is not None:
            parts = urlsplit(f"//{self.dns}")
            return FromDns(parts.hostname or "", parts.port or 0, (self.every or 5000) / 1000)
        assert self.environment is not None
        return FromEnvironment(self.environment)


class HealthFile(Strict):
    """How the instances are watched."""

    path: Annotated[str, Field(max_length=1024), AfterValidator(_target)]
    every: Annotated[int, Field(ge=50, le=3_600_000)] = 2000
    timeout: Annotated[int, Field(ge=1, le=60_000)] = 1000
    down_after: Annotated[int, Field(ge=1, le=100)] = 3
    up_after: Annotated[int, Field(ge=1, le=100)] = 2
    slow_start: Annotated[int, Field(ge=0, le=3_600_000)] = 0
    host: Annotated[str, Field(pattern=r"^[A-Za-z0-9._:\[\]-]{1,255}$")] | None = None

    def value(self) -> HealthPolicy:
        """The frozen value."""
        return HealthPolicy(
            path=self.path,
            every=self.every / 1000,
            timeout=self.timeout / 1000,
            down_after=self.down_after,
            up_after=self.up_after,
            slow_start=self.slow_start / 1000,
            host=self.host or "",
        )


class Place(Strict):
    """The keys of a backend that say where it is."""

    url: Url | None = None
    instances: Annotated[list[Url], Field(min_length=1, max_length=1000)] | None = None
    discover: DiscoverFile | None = None
    health: HealthFile | None = None
    tls: BackendTlsFile | None = None

    @model_validator(mode="after")
    def _one_scheme(self) -> Self:
        urls = [self.url] if self.url is not None else self.instances or []
        secure = {is_tls(url) for url in urls}
        if len(secure) > 1:
            raise ValueError("the instances of a backend are all http:// or all https://")
        if self.tls is not None and secure == {False}:
            raise ValueError("tls belongs to https:// URLs (or to discover, whose list may say http://)")
        return self

    def backend_tls(self) -> BackendTls | None:
        """The frozen value; None where it is spoken to in the clear."""
        urls = [self.url] if self.url is not None else self.instances or []
        if self.tls is not None:
            return self.tls.value()
        return BackendTls() if any(is_tls(url) for url in urls) else None

    @model_validator(mode="after")
    def _somewhere(self) -> Self:
        given = [key for key in ("url", "instances", "discover") if getattr(self, key) is not None]
        if len(given) != 1:
            raise ValueError(
                f"a backend has one of url, instances and discover, not {' and '.join(given) or 'none'}"
            )
        addresses = [address_of(url) for url in self.instances or ()]
        twice = [address.url for address in dict.fromkeys(addresses) if addresses.count(address) > 1]
        if twice:
            raise ValueError(f"{twice[0]} stands twice among the instances")
        return self

    def address(self) -> Address:
        """The first that the file names; empty when it names none."""
        urls = [self.url] if self.url is not None else self.instances or []
        return address_of(urls[0]) if urls else Address("", 0)

    def several(self) -> Several | None:
        """The frozen value; None for one `url` that nobody watches."""
        if self.url is not None and self.health is None:
            return None
        urls = [self.url] if self.url is not None else self.instances or []
        return Several(
            addresses=tuple(address_of(url) for url in urls),
            source=self.discover.value() if self.discover is not None else None,
            health=self.health.value() if self.health is not None else None,
        )
