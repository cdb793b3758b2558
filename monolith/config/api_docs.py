"""`/api/docs/`: the OpenAPI schema as one page, without scripts and without anything from another server."""

from dataclasses import dataclass
from threading import Lock
from typing import Any, ClassVar

from django.http import HttpRequest, HttpResponse
from django.shortcuts import render
from django.views.decorators.http import require_safe
from drf_spectacular.authentication import SessionScheme
from drf_spectacular.generators import SchemaGenerator
from rest_framework.request import Request


class SharedSchemaGenerator(SchemaGenerator):
    """Makes the schema once in a process.

    It is the same for everybody, takes tenths of a second, and drf-spectacular's own registries break when two
    threads fill them at once.
    """

    _lock: ClassVar = Lock()
    _made: ClassVar[dict[str, Any] | None] = None

    def get_schema(self, request: Request | None = None, public: bool = False) -> dict[str, Any]:
        """The OpenAPI document."""
        cls = type(self)
        with cls._lock:
            if cls._made is None:
                cls._made = super().get_schema(request=None, public=True)  # type: ignore[no-untyped-call]
            return cls._made


class CsrfSessionScheme(SessionScheme):  # type: ignore[no-untyped-call]  # drf-spectacular has no hints
    """Tells drf-spectacular that our authentication is Django's session; found by being defined."""

    target_class = "monolith.config.rest.CsrfSessionAuthentication"


@dataclass(frozen=True, slots=True)
class Operation:
    """One method of one path."""

    method: str
    path: str
    description: str
    parameters: tuple[tuple[str, str, str], ...]
    body: str
    answers: tuple[tuple[str, str], ...]


@require_safe
def docs(request: HttpRequest) -> HttpResponse:
    """The page."""
    schema = SharedSchemaGenerator().get_schema()  # type: ignore[no-untyped-call]
    return render(request, "api_docs.html", {"groups": operations(schema), "info": schema["info"]})


def operations(schema: dict[str, Any]) -> dict[str, list[Operation]]:
    """The schema's operations by their first tag."""
    groups: dict[str, list[Operation]] = {}
    for path, methods in sorted(schema["paths"].items()):
        for method, operation in methods.items():
            groups.setdefault(operation["tags"][0], []).append(
                Operation(
                    method=method.upper(),
                    path=path,
                    description=operation.get("description", ""),
                    parameters=tuple(
                        (parameter["name"], parameter["in"], parameter.get("description", ""))
                        for parameter in operation.get("parameters", ())
                    ),
                    body=_name(operation.get("requestBody", {})),
                    answers=tuple(
                        (status, _name(answer)) for status, answer in operation["responses"].items()
                    ),
                )
            )
    return groups


def _name(holder: dict[str, Any]) -> str:
    """Name of the schema in a request body or an answer; of a list, that of its items."""
    for content in holder.get("content", {}).values():
        schema = content.get("schema", {})
        if "items" in schema:
            return f"list of {_name({'content': {'': {'schema': schema['items']}}})}"
        return str(schema.get("$ref", schema.get("type", ""))).rpartition("/")[2]
    return ""
