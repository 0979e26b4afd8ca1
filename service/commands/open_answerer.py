"""From the options of `unihead-predict` to who answers."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import TYPE_CHECKING, cast

from pydantic import ValidationError

from service.answers.finish import Wanted
from service.commands.local import Answerer, LocalAnswerer
from service.commands.presented_key import find_key
from service.machine import keep_freed_memory
from service.rollout.loading import load_verified
from service.settings import ENV_PREFIX, Settings

if TYPE_CHECKING:
    from service.client import Options

_REMOTE_JOBS = 8


class OptionError(Exception):
    """Options, or settings, that cannot be; says which."""


def read_settings(model: Path | None) -> Settings:
    """Read the settings of the service, with another model if one is named.

    Raises:
        OptionError: one is wrong.
    """
    try:
        return Settings(model=model) if model is not None else Settings()
    except ValidationError as error:
        first = error.errors()[0]
        name = f"{ENV_PREFIX}{str(first['loc'][0]).upper()}: " if first["loc"] else ""
        raise OptionError(f"{name}{first['msg'].lower()}") from error


def open_answerer(options: argparse.Namespace, settings: Settings) -> tuple[Answerer, int]:
    """Load the model, or find the service.

    Returns:
        Who answers, and how many pictures at once.

    Raises:
        ContractError: the model cannot be used.
        OptionError: a package is missing, or the address is none.
        Ended: no service answers.
    """
    names = ("score_threshold", "max_detections", "top_k")
    given = {name: getattr(options, name) for name in names if getattr(options, name) is not None}
    wanted = Wanted(options.tasks, mask=options.mask, **given)
    if options.url is None:
        keep_freed_memory()
        engine = load_verified(settings.model, settings, sha256=settings.model_sha256)
        answerer = LocalAnswerer(engine, wanted, settings.picture_limits, drawn=options.overlay)
        return answerer, options.jobs or settings.cpu_threads
    try:
        from service.commands.remote import RemoteAnswerer  # noqa: PLC0415 - httpx is an extra
    except ModuleNotFoundError as error:
        raise OptionError(f"{error.name} is not installed; pip install 'unihead[client]' brings it") from error
    try:
        remote = RemoteAnswerer(options.url, find_key(options), wanted, cast("Options", given), drawn=options.overlay)
    except ValueError as error:
        raise OptionError(str(error)) from error
    return remote, options.jobs or _REMOTE_JOBS
