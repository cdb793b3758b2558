"""`tls` at the top (in front) and of a backend: see `strangler_proxy/tls.py`. Files are tried when they are named.

tls: {certificate: /etc/shop/tls.pem, key: /etc/shop/tls.key}
backends:
  catalog: {url: "https://catalog.internal", tls: {ca: /etc/shop/internal-ca.pem}}
"""

import re
from pathlib import Path
from typing import Annotated, Self

from pydantic import AfterValidator, model_validator

from strangler_proxy.sections.fields import Strict
from strangler_proxy.tls import BackendTls, FrontTls, client_context, server_context

_SERVER_NAME = re.compile(r"[A-Za-z0-9_](?:[A-Za-z0-9_.-]{0,251}[A-Za-z0-9])?")


def _file(value: str) -> str:
    path = Path(value)
    if not path.is_absolute():
        raise ValueError("write the whole path, from / on: workers may run elsewhere")
    try:
        with path.open("rb"):
            pass
    except OSError as error:
        raise ValueError(f"{value} cannot be read: {error.strerror}") from error
    return value


def _server_name(value: str) -> str:
    if not _SERVER_NAME.fullmatch(value):
        raise ValueError("a server name has letters, digits, - and dots")
    return value


File = Annotated[str, AfterValidator(_file)]


class FrontTlsFile(Strict):
    """The certificate the proxy shows to clients."""

    certificate: File
    key: File

    @model_validator(mode="after")
    def _fit(self) -> Self:
        try:
            server_context(self.value())
        except OSError as error:
            raise ValueError(f"certificate and key cannot be used together: {error}") from error
        return self

    def value(self) -> FrontTls:
        """The frozen value."""
        return FrontTls(self.certificate, self.key)


class BackendTlsFile(Strict):
    """How a backend is spoken to."""

    ca: File | None = None
    certificate: File | None = None
    key: File | None = None
    server_name: Annotated[str, AfterValidator(_server_name)] | None = None

    @model_validator(mode="after")
    def _fit(self) -> Self:
        if self.key is not None and self.certificate is None:
            raise ValueError("a key needs its certificate beside it")
        try:
            client_context(self.value())
        except OSError as error:
            raise ValueError(f"the files cannot be used: {error}") from error
        return self

    def value(self) -> BackendTls:
        """The frozen value."""
        return BackendTls(self.ca or "", self.certificate or "", self.key or "", self.server_name or "")
