"""How values, their ranges and their defaults look in the tables of docs/reference/."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from enum import Enum
from pathlib import Path
from typing import Any

from pydantic import BaseModel

ROOT = Path(__file__).parents[2]
_BOUNDS = (("minimum", "from"), ("exclusiveMinimum", "above"), ("maximum", "to"), ("exclusiveMaximum", "below"))


def make_table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """A Markdown table."""
    lines = [head, ["---"] * len(head), *rows]
    return "\n".join(f"| {' | '.join(_escape(cell) for cell in line)} |" for line in lines)


def _escape(text: str) -> str:
    return " ".join(text.split()).replace("|", "\\|")


def describe_type(schema: Mapping[str, Any], known: Mapping[str, Any]) -> str:  # noqa: PLR0911 - one a kind of schema
    """The values that a JSON schema allows, in words: `integer from 0 to 65535`, `keys or off`.

    Args:
        schema: of one value.
        known: what `$ref` may name, by its last part.
    """
    if "$ref" in schema:
        name = schema["$ref"].rsplit("/", 1)[-1]
        return describe_type(known[name], known) if "enum" in known.get(name, {}) else f"`{name}`"
    for key in ("anyOf", "oneOf"):
        if key in schema:
            kinds = [describe_type(one, known) for one in schema[key] if one.get("type") != "null"]
            return " or ".join(dict.fromkeys(kinds))
    if "allOf" in schema:
        return describe_type(schema["allOf"][0], known)
    if "const" in schema:
        return f"`{schema['const']}`"
    if "enum" in schema:
        return ", ".join(f"`{value}`" for value in schema["enum"])
    kind = {"file-path": "path", "path": "path", "binary": "bytes"}.get(
        schema.get("format", ""), schema.get("type", "")
    )
    if kind == "array":
        items = schema.get("items") or {}
        inner = describe_type(items, known) if items else ""
        return f"list of {inner}" if inner else "list"
    if kind == "object" and isinstance(schema.get("additionalProperties"), dict):
        return f"object of {describe_type(schema['additionalProperties'], known)}"
    bounds = [f"{word} {schema[key]}" for key, word in _BOUNDS if key in schema]
    if "multipleOf" in schema:
        bounds.append(f"in steps of {schema['multipleOf']}")
    return " ".join([kind or "anything", *bounds])


def show_default(value: object) -> str:  # noqa: PLR0911 - one line a kind of value
    """A default as somebody would type it; nothing for none."""
    if value is None or value in ((), {}):
        return "none"
    if isinstance(value, BaseModel):
        return "see below"
    if isinstance(value, Enum):
        return f"`{value.value}`"
    if isinstance(value, bool):
        return f"`{str(value).lower()}`"
    if isinstance(value, Path):
        return f"`{hide_place(str(value))}`"
    if isinstance(value, int | float):
        return f"`{value}`" + (f" ({value // 2**20} MiB)" if value and value % 2**20 == 0 else "")
    if isinstance(value, tuple | list):
        return ", ".join(show_default(one) for one in value)
    return f"`{hide_place(str(value))}`"


def hide_place(text: str) -> str:
    """Without the folders of the machine that the page is written on."""
    return re.sub(rf"{re.escape(str(Path.home()))}(?=/|$)", "~", text.replace(f"{ROOT}/", ""))
