"""`strangler export`: the routes file as static configuration for Envoy and for the Kubernetes Gateway API."""

from pathlib import Path

import click

from strangler_proxy.envoy.render import Place
from strangler_proxy.export.envoy import AUTHORITIES, envoy_file
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
