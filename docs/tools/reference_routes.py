"""docs/reference/api.md: every route with its parameters and answers, and the shapes that these have."""

from __future__ import annotations

import inspect
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from fastapi import FastAPI
from fastapi.routing import iter_route_contexts

from docs.tools.reference_tables import describe_type, make_table
from service import errors
from service.api.problems import MEDIA_TYPE

_REF = "#/components/schemas/"
# FastAPI's own shapes; our routes answer with problems in their place.
_NOT_OURS = {"HTTPValidationError", "ValidationError"}


def describe_routes(app: FastAPI) -> str:
    """Every route of an app, those that are left out of its OpenAPI schema too."""
    schema = app.openapi()
    components = schema["components"]["schemas"]
    listed = [
        (method.upper(), path, route) for path, routes in schema["paths"].items() for method, route in routes.items()
    ]
    rows = [(f"`{method} {path}`", route.get("summary", "")) for method, path, route in listed]
    rows += [(f"`{method} {path}`", text) for method, path, text in _unlisted(app, {(m, p) for m, p, _ in listed})]
    parts = [
        "# API",
        (
            "`GET /docs` of a running service shows the same with forms to try it, `GET /openapi.json` is for "
            "programs. [Serving](../serving.md) says how requests share passes, queue and are refused."
        ),
        make_table(("route", "what it does"), rows),
    ]
    for method, path, route in listed:
        parts += [f"## {method} {path}", *_describe_route(route, components)]
    parts += ["## Errors", *_describe_errors(), "## Shapes"]
    for name, shape in components.items():
        if name not in _NOT_OURS:
            parts += [f"### {name}", *_describe_shape(shape, components)]
    return "\n\n".join(part for part in parts if part)


def _unlisted(app: FastAPI, listed: set[tuple[str, str]]) -> Iterator[tuple[str, str, str]]:
    for route in iter_route_contexts(app.routes):
        for method in sorted((route.methods or set()) - {"HEAD"}):
            if (method, str(route.path)) not in listed:
                yield method, str(route.path), _first_sentence(route.endpoint)


def _first_sentence(function: object) -> str:
    return (inspect.getdoc(function) or "").partition("\n")[0]


def _describe_route(route: Mapping[str, Any], components: Mapping[str, Any]) -> Sequence[str]:
    parts = [f"{route['summary']}. {' '.join(route.get('description', '').split())}"]
    if parameters := route.get("parameters"):
        rows = []
        for one in parameters:
            shape = one["schema"]
            values = describe_type(shape, components)
            default = f"`{shape['default']}`" if "default" in shape else ""
            rows.append((f"`{one['name']}`", one["in"], values, default, one.get("description", "")))
        parts.append(make_table(("parameter", "in", "values", "default", "what it is"), rows))
    if body := route.get("requestBody"):
        kinds = ", ".join(f"`{kind}`" for kind in body["content"])
        parts.append(f"Body ({kinds}): {body.get('description', '')}")
    answers: list[tuple[str, str, str]] = []
    problems: list[str] = []
    for status, answer in route["responses"].items():
        content = answer.get("content", {})
        if MEDIA_TYPE in content:  # its description is the status in words, which change from one Python to the next
            problems.append(status)
            continue
        shown = [f"`{kind}` {_link(one.get('schema') or {}, components)}".strip() for kind, one in content.items()]
        answers.append((status, answer.get("description", ""), ", ".join(shown)))
    if problems:
        answers.append((", ".join(sorted(problems)), "Why not", f"`{MEDIA_TYPE}` [Problem](#problem)"))
    parts.append(make_table(("status", "", "content"), answers))
    return parts


def _link(schema: Mapping[str, Any], components: Mapping[str, Any]) -> str:
    reference = schema.get("$ref", "")
    if reference.startswith(_REF):
        name = reference.removeprefix(_REF)
        return f"[{name}](#{name.lower()})"
    if choices := schema.get("anyOf"):
        return " or ".join(_link(choice, components) for choice in choices)
    if items := schema.get("items"):
        kinds = _link(items, components)
        return f"list of ({kinds})" if "anyOf" in items else f"list of {kinds}"
    return "" if schema.get("format") == "binary" else describe_type(schema, components) if "type" in schema else ""


def _describe_errors() -> Sequence[str]:
    rows = []
    for kind in _leaves(errors.UniheadError):
        status, code = getattr(kind, "status", None), getattr(kind, "code", None)
        if status is not None:
            rows.append((str(status), f"`{code}`", _first_sentence(kind)))
    text = (
        f"`{MEDIA_TYPE}` with the shape [Problem](#problem); `code` tells the kinds apart. Routes below `/v2` answer "
        '`{"error": "..."}`, those below `/v1` `{"success": false, "error": "...", "code": 404}`, as their protocols '
        "want it."
    )
    return text, make_table(("status", "code", "when"), sorted(rows))


def _leaves(kind: type[errors.UniheadError]) -> Iterator[type[errors.UniheadError]]:
    for one in kind.__subclasses__():
        if one.__module__ != errors.__name__:  # the client's own, where a test has imported it
            continue
        if one.__subclasses__():
            yield from _leaves(one)
        else:
            yield one


def _describe_shape(shape: Mapping[str, Any], components: Mapping[str, Any]) -> Sequence[str]:
    rows = [
        (f"`{name}`", describe_type(field, components), field.get("description", ""))
        for name, field in shape.get("properties", {}).items()
    ]
    text = " ".join(shape.get("description", "").split())
    return text, make_table(("field", "values", "what it is"), rows) if rows else describe_type(shape, components)
