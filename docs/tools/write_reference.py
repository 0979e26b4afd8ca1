"""docs/reference/: every setting, metric, route, field and command, written out of the code.

`python -m docs.tools.write_reference` writes the pages; tests/repository/test_reference.py fails where they differ.
"""

from __future__ import annotations

import inspect
import os
import re
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import MISSING, Field, fields
from pathlib import Path
from typing import Any

from pydantic import BaseModel
from pydantic_core import PydanticUndefined

from docs.tools.reference_commands import describe_commands
from docs.tools.reference_routes import describe_routes
from docs.tools.reference_tables import describe_type, make_table, show_default
from service.app import create_app
from service.engine import contract
from service.engine.contract import (
    ELEMENT_TYPES,
    INPUT_NAME,
    GoldenAnswer,
    GoldenDetection,
    GoldenTolerance,
    LetterboxRule,
    ModelContract,
)
from service.settings import ENV_PREFIX, Settings
from training.config import Config

FOLDER = Path(__file__).parents[1] / "reference"
_WRITTEN = "<!-- Written by `python -m docs.tools.write_reference`; change the code, not this page. -->"
# A field's comment: `score: float  # 0..1`.
_COMMENT = re.compile(r"^    (\w+): [^#\n]+  # (.+)$", re.MULTILINE)
_ATTRIBUTE = re.compile(r"^    (\w+(?:, \w+)*): (.+(?:\n     .+)*)", re.MULTILINE)


def make_pages() -> dict[str, str]:
    """The text of each page, by its file name."""
    with _no_settings_of_ours():
        pages = {
            "settings.md": describe_settings(),
            "metrics.md": describe_metrics(),
            "api.md": describe_routes(create_app(Settings())),
            "contract.md": describe_contract(),
            "commands.md": describe_commands(),
            "presets.md": describe_presets(),
        }
    return {name: f"{_WRITTEN}\n\n{text.rstrip()}\n" for name, text in pages.items()}


@contextmanager
def _no_settings_of_ours() -> Iterator[None]:
    """Take UNIHEAD_ variables, and what moves default folders, out of the environment: defaults are asked for."""
    kept = dict(os.environ)
    for name in kept:
        if name.startswith(ENV_PREFIX) or name == "XDG_CACHE_HOME":
            del os.environ[name]
    try:
        yield
    finally:
        os.environ.update(kept)


def describe_settings() -> str:
    """Every setting: variable, flag, values, default, meaning with its unit."""
    schema = Settings.model_json_schema()
    rows = []
    for name, field in Settings.model_fields.items():
        # `--docs` is on unless `--no-docs` is given.
        flag = f"--{'no-' if field.default is True else ''}{name.replace('_', '-')}"
        values = describe_type(schema["properties"][name], schema.get("$defs", {}))
        rows.append(
            (f"`{ENV_PREFIX}{name.upper()}`", f"`{flag}`", values, show_default(field.default), field.description or "")
        )
    return "\n\n".join(
        (
            "# Settings",
            (
                "`unihead-serve` takes each from the environment or as a flag; a flag wins. A variable that begins "
                f"with `{ENV_PREFIX}` and is no setting is named in the log with the one that was probably meant. "
                "`GET /info` says which limits are in force. [Serving](../serving.md) says what they do together."
            ),
            make_table(("variable", "flag", "values", "default", "what it is"), rows),
        )
    )


def describe_metrics() -> str:
    """Every metric of the registry: name, type, labels, meaning."""
    registry = create_app(Settings()).state.service.metrics.registry
    # There is no public way to the label names of a metric that has no samples yet.
    collectors = registry._names_to_collectors  # noqa: SLF001 - prometheus_client has no public list of what a registry holds
    rows = []
    for family in registry.collect():
        name = family.name + ("_total" if family.type == "counter" else "")
        labels = getattr(collectors.get(family.name), "_labelnames", ())
        shown = ", ".join(f"`{label}`" for label in labels)
        rows.append((f"`{name}`", family.type, shown, family.documentation))
    ours = [row for row in rows if row[0].startswith("`unihead_")]
    others = [row for row in rows if row not in ours]
    head = ("metric", "type", "labels", "what it says")
    return "\n\n".join(
        (
            "# Metrics",
            (
                "`GET /metrics`, in Prometheus' text format. [Serving](../serving.md#metrics) groups them by what they "
                "are for, [Deploying](../deploy.md#what-wakes-somebody-and-what-to-do-then) has the alerts."
            ),
            make_table(head, ours),
            "## Of the process",
            "prometheus-client brings these.",
            make_table(head, others),
        )
    )


def describe_contract() -> str:
    """Every field of what a model file says about itself."""
    types = [(f"`{name}`", "input" if name == INPUT_NAME else "output", kind) for name, kind in ELEMENT_TYPES.items()]
    parts = [
        "# Model contract",
        (
            f"A unihead ONNX file carries this as JSON in its metadata, under `{contract.METADATA_KEY}`. "
            "`unihead-export onnx` writes it, the service checks it when it loads the file, `GET /info` shows it. "
            "An unknown field is an error, and a missing one too, but for `tasks`, `golden_tolerance`, "
            "`score_threshold` and what calibration finds: files are older than those."
        ),
        make_table(("tensor", "", "element type"), types),
    ]
    for kind in (ModelContract, LetterboxRule, GoldenAnswer, GoldenDetection, GoldenTolerance):
        meanings = find_meanings(kind)
        rows = [(f"`{f.name}`", f"`{f.type}`", _default_of(f), meanings.get(f.name, "")) for f in fields(kind)]
        first = (inspect.getdoc(kind) or "").partition("\n")[0]
        parts += [f"## {kind.__name__}", first, make_table(("field", "type", "default", "what it is"), rows)]
    return "\n\n".join(parts)


def find_meanings(kind: type) -> dict[str, str]:
    """What a dataclass says about its fields: in the docstring's `Attributes`, or in a comment behind the field."""
    found = {name: text.strip() for name, text in _COMMENT.findall(inspect.getsource(kind))}
    _, _, attributes = (inspect.getdoc(kind) or "").partition("Attributes:\n")
    for names, text in _ATTRIBUTE.findall(attributes):
        for name in names.split(", "):
            found[name] = " ".join(text.split())
    return found


def _default_of(field: Field[Any]) -> str:
    if field.default is not MISSING:
        return show_default(field.default)
    if field.default_factory is LetterboxRule or field.default_factory is GoldenTolerance:
        return "see below"
    return "" if field.default_factory is MISSING else "none"


def describe_presets() -> str:
    """Every key of a preset, table by table."""
    schema = Config.model_json_schema()
    parts = [
        "# Presets",
        (
            "A preset is a TOML file with these keys; an unknown one is an error. `training/presets` has those that "
            "ship. [Training](../training.md#what-can-be-switched) groups them by what they change."
        ),
    ]
    for kind in _models_of(Config):
        own = schema if kind is Config else schema["$defs"][kind.__name__]
        rows = []
        for name, field in kind.model_fields.items():
            default = "" if field.is_required() else show_default(field.get_default(call_default_factory=True))
            if field.default is PydanticUndefined and not field.is_required() and not default:
                default = "none"
            values = describe_type(own["properties"][name], schema["$defs"])
            rows.append((f"`{name}`", values, default, field.description or ""))
        title = "The file itself" if kind is Config else kind.__name__
        first = " ".join((inspect.getdoc(kind) or "").partition("\n\n")[0].split())
        parts += [f"## {title}", first, make_table(("key", "values", "default", "what it is"), rows)]
    return "\n\n".join(part for part in parts if part)


def _models_of(kind: type[BaseModel]) -> Sequence[type[BaseModel]]:
    """A model and all that its fields hold, each once, in the order in which they are met."""
    found = [kind]
    for known in found:
        for field in known.model_fields.values():
            found += [one for one in _inner_models(field.annotation) if one not in found]
    return found


def _inner_models(annotation: Any) -> Iterable[type[BaseModel]]:  # noqa: ANN401 - any annotation of a field
    if inspect.isclass(annotation) and issubclass(annotation, BaseModel):
        yield annotation
    for argument in getattr(annotation, "__args__", ()):
        yield from _inner_models(argument)


def main() -> None:
    """Write the pages."""
    FOLDER.mkdir(exist_ok=True)
    for name, text in make_pages().items():
        (FOLDER / name).write_text(text, encoding="utf-8")


if __name__ == "__main__":
    main()
