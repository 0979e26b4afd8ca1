"""A new model file in the place of the old one: everything about it is checked before it answers anybody."""

from __future__ import annotations

import asyncio
import hashlib
import logging
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from service.engine.engine import Engine, build_engine
from service.engine.golden import NoGoldenAnswers, check_golden
from service.engine.onnx_file import inspect_onnx
from service.engine.session import read_model
from service.errors import ContractError, ModelOutputInvalid
from service.machine import give_back_freed_memory
from service.settings import Settings
from service.telemetry.metrics import Outcome

logger = logging.getLogger("unihead")

# ONNX's own operators, under both of its names; others would need code that the service does not have.
_DOMAINS = frozenset({"", "ai.onnx"})


@dataclass(frozen=True, slots=True)
class Reload:
    """How one reload ended.

    Attributes:
        number: how many there have been, this one included.
        outcome: what happened to the new file.
        sha256: of the model that answers now.
        reason: why the new file was refused; empty otherwise.
        finished_at: seconds since 1970.
    """

    number: int
    outcome: Outcome
    sha256: str
    reason: str
    finished_at: float


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


class Reloader:
    """Swaps the model that answers, one reload at a time.

    Attributes:
        last: how the latest reload ended; None before the first.
    """

    def __init__(
        self,
        settings: Settings,
        *,
        current: Callable[[], Engine],
        swap: Callable[[Engine], None],
        count: Callable[[Outcome], None],
    ) -> None:
        """Reload nothing yet.

        Args:
            settings: name the file and its pinned SHA-256.
            current: the engine that answers now.
            swap: puts another in its place.
            count: told how each reload ended.
        """
        self.last: Reload | None = None
        self._settings = settings
        self._current = current
        self._swap = swap
        self._count = count
        self._lock = asyncio.Lock()
        self._next: asyncio.Task[Reload] | None = None
        self._number = 0

    async def reload(self) -> Reload:
        """Load the file anew and swap it in, or keep the old model; never raises because of the file.

        Whoever asks while one reload runs shares the next one, which begins when that is over: a hundred requests at
        once are two reloads, and each has seen the file as it was after it was asked for.
        """
        if self._next is None:
            self._next = asyncio.ensure_future(self._reload())
        return await asyncio.shield(self._next)

    async def _reload(self) -> Reload:
        async with self._lock:
            self._next = None
            outcome, reason = await self._try()
            self._number += 1
            self._count(outcome)
            self.last = Reload(self._number, outcome, self._current().sha256, reason, time.time())
            if outcome == "refused":
                logger.error("the model stays as it is, because the new one was refused: %s", reason)
            else:
                logger.info("model reloaded: %s, %s answers", outcome, self._current().contract.version)
            # What loading took, and the model before the last: hundreds of megabytes after some reloads.
            await asyncio.to_thread(give_back_freed_memory)
            return self.last

    async def _try(self) -> tuple[Outcome, str]:
        try:
            engine = await asyncio.to_thread(load_live, self._settings, must_carry_answers=True)
        except ContractError as error:
            return "refused", str(error)
        except Exception as error:  # the old model must go on answering, whatever a file does to a parser
            logger.exception("the new model file broke the loader")
            return "refused", f"{type(error).__name__}: {error}"
        if engine.sha256 == self._current().sha256:
            return "unchanged", ""
        self._swap(engine)
        return "swapped", ""
