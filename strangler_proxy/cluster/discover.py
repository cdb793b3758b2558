"""Lists of instances from outside the routes file: a file, DNS, the environment.

Each gives the addresses, sorted and each once, or raises NoListError with what is wrong and what to do. An empty
list is a fault: it is more likely a file half written than a service without servers.
"""

import asyncio
import socket
from collections.abc import Iterable, Mapping
from pathlib import Path

from chassis.problems import InvalidFileError
from chassis.yamlfile import parse
from strangler_proxy.cluster.several import Address, FromDns, FromEnvironment, FromFile
from strangler_proxy.sections.fields import address_of, checked_url
from strangler_proxy.table import Backend

_RESOLVE_SECONDS = 5.0


class NoListError(Exception):
    """The instances cannot be told: what is wrong, and what to do."""

    def __init__(self, fault: str, remedy: str) -> None:
        self.fault = fault
        self.remedy = remedy
        super().__init__(f"{fault} ({remedy})")


def read_list(path: Path) -> tuple[Address, ...]:
    """The instances that the YAML or JSON list at `path` names. Raises NoListError."""
    try:
        text = path.read_bytes().decode("utf-8")
        urls, _ = parse(text, str(path))
    except OSError as error:
        fault = f"{path} cannot be read: {error.strerror}"
        raise NoListError(fault, "check the path and its permissions") from error
    except UnicodeDecodeError as error:
        raise NoListError(f"{path} is not UTF-8", "save it as UTF-8") from error
    except InvalidFileError as error:
        raise NoListError(str(error.problems[0]), "write a list of URLs") from error
    if not isinstance(urls, list) or not all(isinstance(url, str) for url in urls):
        raise NoListError(f"{path} holds no list of URLs", "write one: [http://10.0.0.1:8101]")
    return _addresses(urls, str(path))


def from_environment(source: FromEnvironment, environment: Mapping[str, str]) -> tuple[Address, ...]:
    """The instances that variables tell of. Raises NoListError.

    Kubernetes sets `NAME_SERVICE_HOST` and `NAME_SERVICE_PORT` for each service of a namespace.
    """
    name = source.name
    urls = [part.strip() for part in environment.get(name, "").split(",") if part.strip()]
    host, port = environment.get(f"{name}_SERVICE_HOST"), environment.get(f"{name}_SERVICE_PORT")
    if not urls and host and port:
        urls = [f"http://[{host}]:{port}" if ":" in host else f"http://{host}:{port}"]
    if not urls:
        raise NoListError(
            f"neither {name} nor {name}_SERVICE_HOST and {name}_SERVICE_PORT are set",
            "set it to URLs with commas between them before the proxy is started",
        )
    return _addresses(urls, f"variable {name}")


async def resolve(source: FromDns) -> tuple[Address, ...]:
    """Every address of a host: its A and AAAA records, or what this machine's hosts file says. Raises
    NoListError."""
    loop = asyncio.get_running_loop()
    try:
        async with asyncio.timeout(_RESOLVE_SECONDS):
            found = await loop.getaddrinfo(source.host, source.port, type=socket.SOCK_STREAM)
    except TimeoutError as error:
        fault = f"{source.host} was not resolved within {_RESOLVE_SECONDS:g} s"
        raise NoListError(fault, "check this machine's name servers") from error
    except (OSError, UnicodeError) as error:  # gaierror is an OSError; a label can be too long for IDNA
        raise NoListError(f"{source.host} is not resolved: {error}", "check the name") from error
    return tuple(sorted({Address(str(address[0]), source.port) for *_, address in found}))


def one_url(backend: Backend, *, base: Path, environment: Mapping[str, str]) -> str:
    """Where `backend` can be asked directly: its own URL, or that of its first instance (of a name: the name).
    `base` is the routes file's folder. Raises NoListError."""
    match backend.several.source if backend.several is not None else None:
        case None:
            return backend.url
        case FromDns(host, port):
            return Address(host, port).url
        case FromFile(path):
            return read_list(base / path)[0].url
        case FromEnvironment() as source:
            return from_environment(source, environment)[0].url


def _addresses(urls: Iterable[str], where: str) -> tuple[Address, ...]:
    addresses = set()
    for url in urls:
        try:
            addresses.add(address_of(checked_url(url)))
        except ValueError as error:
            raise NoListError(f"{where}: {url!r}: {error}", "write http://HOST:PORT") from error
    if not addresses:
        raise NoListError(f"{where} names no instance", "name at least one: http://10.0.0.1:8101")
    return tuple(sorted(addresses))
