"""Triton's model configuration as a type."""

from __future__ import annotations

import importlib.util
from pathlib import Path
from types import ModuleType


def load_types() -> ModuleType:
    """Triton's configuration as a type. Its package cannot be imported beside KServe's: both declare one protocol."""
    (folder,) = importlib.util.find_spec("tritonclient").submodule_search_locations  # type: ignore[union-attr,misc]  # it is installed
    spec = importlib.util.spec_from_file_location("model_config_pb2", Path(folder) / "grpc" / "model_config_pb2.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


model_config_pb2 = load_types()
