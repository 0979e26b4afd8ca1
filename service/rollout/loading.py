"""A model file, read once: everything about it is checked before it answers anybody."""

from __future__ import annotations

import hashlib
import logging
from pathlib import Path

from service.engine.engine import Engine, build_engine
from service.engine.golden import NoGoldenAnswers, check_golden
from service.engine.onnx_file import inspect_onnx
from service.engine.session import read_model
from service.errors import ContractError, ModelOutputInvalid
from service.settings import Settings

logger = logging.getLogger("unihead")

# ONNX's own operators, under both of its names; others would need code that the service does not have.
_DOMAINS = frozenset({"", "ai.onnx"})


def load_verified(path: Path, settings: Settings, *, sha256: str | None = None) -> Engine:
    """Read a model file once, check what it says about itself, and warm it up.

    Args:
        path: the ONNX file.
        settings: threads and execution providers.
        sha256: that the file must have; None takes any.

    Raises:
        ContractError: it is not the pinned file, not what the contract says, refers to other files, needs unknown
            operators, cannot answer, or breaks whatever reads it.
    """
    try:
        return _load(read_model(path), path, settings, sha256)
    except ContractError as error:
        if str(error).startswith(f"{path}: "):
            raise
        raise ContractError(f"{path}: {error}") from error
    except Exception as error:  # parsers raise what they like, and this is no fault of ours
        raise ContractError(f"{path}: it breaks the loader: {type(error).__name__}: {error}") from error


def _load(model: bytes, path: Path, settings: Settings, sha256: str | None) -> Engine:
    found = hashlib.sha256(model).hexdigest()
    if sha256 is not None and found != sha256.lower():
        raise ContractError(f"its SHA-256 is {found}, the setting model_sha256 wants another")
    facts = inspect_onnx(model)
    if facts.external:
        raise ContractError(f"{len(facts.external)} tensors lie in other files; export it as one file")
    foreign = facts.domains - _DOMAINS
    if foreign:
        raise ContractError(f"it has operators of {', '.join(sorted(foreign))}; only ONNX's own are run")
    engine = build_engine(
        model,
        threads=1,
        wide_threads=settings.wide_threads,
        providers=settings.providers,
        name=str(path),
    )
    engine.warm_up()
    return engine


def load_live(settings: Settings, *, must_carry_answers: bool) -> Engine:
    """Load the model that is to answer, and ask it about the shipped pictures.

    Args:
        settings: name the file and its pinned SHA-256, and say what other answers than its own are met with.
        must_carry_answers: refuse a file that does not say what it answers.

    Raises:
        ContractError: see `load_verified`; or it does not answer as its file says, or what cannot be true.
    """
    engine = load_verified(settings.model, settings, sha256=settings.model_sha256)
    try:
        check_golden(engine)
    except ModelOutputInvalid as error:
        raise ContractError(f"{settings.model}: about a golden picture the model says: {error}") from error
    except ContractError as error:
        tolerated = not must_carry_answers if isinstance(error, NoGoldenAnswers) else settings.golden == "warn"
        if not tolerated:
            raise ContractError(f"{settings.model}: {error}") from error
        logger.warning("%s: %s", settings.model, error)
    except Exception as error:  # what a file carries may be anything
        words = f"{type(error).__name__}: {error}"
        raise ContractError(f"{settings.model}: its answers cannot be compared: {words}") from error
    return engine
