"""TLS on both sides of the proxy: what the routes file asks for, and the contexts made of it.

In front: TLS 1.2 and newer, HTTP/1.1 by ALPN (RFC 7301); HTTP/2 in front is what the Envoy engine does. The
certificate is read again when its files change: connections go on with the one they began with, and files that
do not fit together leave the old one in use.

Towards backends: the certificate is verified against `ca` (the system's authorities without one) and the name
in the URL, or `server_name`; there is no way to switch that off, a private authority is one line of
configuration. A backend that cannot show a good certificate counts as one that cannot be reached.

The standard library's `ssl` (OpenSSL) with its secure defaults (`create_default_context`) does the rest.
"""

import ssl
from dataclasses import dataclass, field
from pathlib import Path

HANDSHAKE_SECONDS = 10.0


@dataclass(frozen=True, slots=True)
class FrontTls:
    """PEM files: the certificate with its chain, and its key."""

    certificate: str
    key: str

    def files(self) -> tuple[str, str]:
        """What is followed."""
        return self.certificate, self.key


@dataclass(frozen=True, slots=True)
class BackendTls:
    """PEM files, each optional: `ca` to trust instead of the system's, a client certificate and its key.
    `server_name` is expected instead of the URL's host."""

    ca: str = ""
    certificate: str = ""
    key: str = ""
    server_name: str = ""


def server_context(front: FrontTls) -> ssl.SSLContext:
    """A context for listening. Raises OSError (ssl.SSLError among it) when the files cannot be used."""
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    context.set_alpn_protocols(["http/1.1"])
    context.load_cert_chain(front.certificate, front.key)
    return context


def client_context(backend: BackendTls) -> ssl.SSLContext:
    """A context for connections to a backend. Raises OSError when its files cannot be used."""
    context = ssl.create_default_context(ssl.Purpose.SERVER_AUTH, cafile=backend.ca or None)
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    context.set_alpn_protocols(["http/1.1"])
    if backend.certificate:
        context.load_cert_chain(backend.certificate, backend.key or None)
    return context


@dataclass(slots=True)
class FollowedContext:
    """A context for listening that takes up new files. Call `look` about once a second."""

    front: FrontTls
    context: ssl.SSLContext = field(init=False)
    _seen: tuple[tuple[int, int], ...] = ()

    def __post_init__(self) -> None:
        self._seen = self._stamps()
        self.context = server_context(self.front)

    def look(self) -> str | None:
        """Take up the files when they have changed. None when nothing did, empty when they are in use now,
        else why they cannot be."""
        try:
            stamps = self._stamps()
            if stamps == self._seen:
                return None
            self._seen = stamps
            server_context(self.front)  # on its own first: half a change must not reach the one in use
            self.context.load_cert_chain(self.front.certificate, self.front.key)
        except OSError as error:
            return str(error)
        return ""

    def _stamps(self) -> tuple[tuple[int, int], ...]:
        stats = [Path(name).stat() for name in self.front.files()]
        return tuple((stat.st_mtime_ns, stat.st_ino) for stat in stats)
