"""Variables of the environment that begin like settings, and are none."""

from __future__ import annotations

import difflib
import re
from collections.abc import Mapping

from service.settings import ENV_PREFIX, Settings
from service.words import is_service_link

# Read by tests, the Makefile and training; no business of the service, and no typing error either.
_OTHERS_VARIABLES = frozenset({"UNIHEAD_DATA", "UNIHEAD_BACKBONE_WEIGHTS", "UNIHEAD_CACHE_DIR", "UNIHEAD_TEACHERS"})
# What Kubernetes sets beside NAME_PORT=tcp://10.0.0.1:80.
_LINK_NAME = re.compile(
    r"(.+?)_(?:SERVICE_HOST|SERVICE_PORT(?:_\w+)?|PORT(?:_\d+_(?:TCP|UDP|SCTP)(?:_(?:PROTO|PORT|ADDR))?)?)"
)


def describe_odd_variables(environment: Mapping[str, str]) -> list[str]:
    """One sentence for each UNIHEAD_ variable that is no setting, or holds none, with what was probably meant.

    Kubernetes gives a dozen variables of a Service named unihead to every pod beside it; they are one sentence.
    """
    ours = {name: value for name, value in environment.items() if name.upper().startswith(ENV_PREFIX)}
    known = {f"{ENV_PREFIX}{name.upper()}" for name in Settings.model_fields}
    links = {name for name, value in ours.items() if is_service_link(value)}
    theirs = {name for name in ours if (found := _LINK_NAME.fullmatch(name)) and f"{found[1]}_PORT" in links}
    sentences = [
        f"the environment sets {name} to {ours[name]}, as Kubernetes does for a Service of that name; it is no setting "
        "and the default counts: say `enableServiceLinks: false` in the pod's spec"
        for name in sorted(theirs & known)
    ]
    unknown = {name for name in ours if name.upper() not in known}
    for name in sorted(unknown - theirs - _OTHERS_VARIABLES):
        close = difflib.get_close_matches(name.upper(), known, n=1)
        hint = f"did you mean {close[0]}?" if close else "see `unihead-serve --help`"
        sentences.append(f"the environment sets {name}, which is no setting; {hint}")
    return sentences
