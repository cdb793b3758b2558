"""`strangler export`: the routes file as static configuration for Envoy and for the Kubernetes Gateway API."""

import re
from pathlib import Path

import click

from strangler_proxy.envoy.render import Place
from strangler_proxy.export.envoy import AUTHORITIES, envoy_file
from strangler_proxy.export.gateway_api import Cluster, Service, gateway_file
from strangler_proxy.export.judge import Export, UnknownGroupError, without
from strangler_proxy.routes import parse_with_places, read_content
from strangler_proxy.table import Routes

_routes = click.argument("routes", type=click.Path(path_type=Path))
_output = click.option(
    "-o",
    "--output",
    type=click.Path(path_type=Path, dir_okay=False),
    help="Where to, instead of standard output.",
)
_without = click.option(
    "--without",
    "left_out",
    metavar="GROUP",
    multiple=True,
    help="A group to leave out: its paths go to the default backend. May be repeated.",
)


@click.group()
def export() -> None:
    """Write the routes file as static configuration for others.

    What the target cannot do is told on standard error and at the top of the file. Where leaving it out would be
    wrong (who may enter, a path that is rewritten or answered by several backends), the file is refused by line.

    \b
    Example:
      strangler export envoy routes.yaml --without dashboard -o envoy.yaml
    """


@export.command()
@_routes
@_output
@_without
@click.option("--host", default="127.0.0.1", show_default=True, help="Address that Envoy listens on.")
@click.option("--port", type=int, default=8000, show_default=True)
@click.option(
    "--workers", type=click.IntRange(min=1), default=1, show_default=True, help="Envoy's --concurrency."
)
@click.option(
    "--authorities",
    default=AUTHORITIES,
    show_default=True,
    help="PEM file, where Envoy runs, of the authorities that backends are trusted by.",
)
def envoy(
    *,
    routes: Path,
    output: Path | None,
    left_out: tuple[str, ...],
    host: str,
    port: int,
    workers: int,
    authorities: str,
) -> None:
    """One file that Envoy runs by itself, with the same side for the same users.

    \b
    Example:
      strangler export envoy routes.yaml --without dashboard -o envoy.yaml
      envoy --mode validate -c envoy.yaml
    """
    content = read_content(routes)
    parsed, places = parse_with_places(content, str(routes))
    place = Place(host, port, workers, authorities)
    _write(envoy_file(_chosen(parsed, left_out), places, place), output)


@export.command(name="gateway-api")
@_routes
@_output
@_without
@click.option("--namespace", default="default", show_default=True, help="Of the Gateway and its HTTPRoutes.")
@click.option("--gateway", default="strangler", show_default=True, help="The Gateway's name.")
@click.option("--gateway-class", default="eg", show_default=True, help="The implementation's class.")
@click.option(
    "--port", type=click.IntRange(1, 65535), help="Of the Gateway; 80, or 443 with TLS, unless said."
)
@click.option(
    "--service",
    "services",
    metavar="BACKEND=[NAMESPACE/]NAME:PORT",
    multiple=True,
    help="Which Service a backend is. May be repeated.",
)
def gateway_api(
    *,
    routes: Path,
    output: Path | None,
    left_out: tuple[str, ...],
    namespace: str,
    gateway: str,
    gateway_class: str,
    port: int | None,
    services: tuple[str, ...],
) -> None:
    """Gateway and HTTPRoutes for Kubernetes. Its weights are draws: one user meets both sides.

    \b
    Example:
      strangler export gateway-api routes.yaml --without dashboard --namespace shop -o routes-k8s.yaml
      kubectl apply -f routes-k8s.yaml
    """
    parsed, places = parse_with_places(read_content(routes), str(routes))
    chosen = _chosen(parsed, left_out)
    named = dict(_service(text, chosen) for text in services)
    cluster = Cluster(namespace, gateway, gateway_class, port, named)
    _write(gateway_file(chosen, places, cluster), output)


_SERVICE = re.compile(r"([^=]+)=(?:([a-z0-9-]{1,63})/)?([a-z]([-a-z0-9]{0,61}[a-z0-9])?):(\d{1,5})")


def _service(text: str, routes: Routes) -> tuple[str, Service]:
    found = _SERVICE.fullmatch(text)
    if found is None or not 1 <= int(found[5]) <= 65535:
        raise click.UsageError(f"{text!r} is not BACKEND=[NAMESPACE/]NAME:PORT")
    if found[1] not in routes.backends:
        raise click.UsageError(f"no backend {found[1]!r} (there are: {', '.join(routes.backends)})")
    return found[1], Service(found[3], int(found[5]), found[2] or "")


def _chosen(routes: Routes, left_out: tuple[str, ...]) -> Routes:
    try:
        return without(routes, left_out)
    except UnknownGroupError as error:
        raise click.UsageError(str(error)) from error


def _write(export: Export, output: Path | None) -> None:
    for note in export.notes:
        click.echo(f"note: {note}", err=True)
    if output is None:
        click.echo(export.text, nl=False)
    else:
        output.write_text(export.text, encoding="utf-8")
