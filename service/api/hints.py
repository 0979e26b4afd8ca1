"""What a body that is no picture probably was meant to be: one sentence that says how to send it."""

from __future__ import annotations

import re

from service.api.forms import FIELD_NAME

_SEND_BYTES = (
    "send the picture's own bytes (curl --data-binary @photo.jpg), or a form with them "
    f"(curl -F {FIELD_NAME}=@photo.jpg)"
)
_INFER = "POST /v2/models/unihead/infer takes `inputs` of the Open Inference Protocol (no `instances`)"
_BEGINNING = 256
# The more special one first.
_HINTS: tuple[tuple[bytes, str], ...] = (
    (
        rb'\s*\{\s*"(url|uri|image_url|link)"',
        f"the body is JSON with an address, and nothing is fetched from anywhere here; {_SEND_BYTES}",
    ),
    (
        rb'\s*\{\s*"(inputs|instances|id|signature_name)"',
        f"the body is an inference request in JSON; {_INFER}, and this path takes pictures: {_SEND_BYTES}",
    ),
    (
        rb"(\xef\xbb\xbf)?\s*[{\[]\s*([\"{\[\]}]|\d)",
        f"the body is JSON, and a picture in it, base64 or not, is not looked for; {_SEND_BYTES}",
    ),
    (rb"data:image/|/9j/|iVBORw0KGgo|UklGR", f"the body is base64 text of a picture; decode it and {_SEND_BYTES}"),
    (rb"https?://", f"the body is a URL, and nothing is fetched from anywhere here; {_SEND_BYTES}"),
    (
        rb"[\w.-]{0,40}=@?[^\x00-\x1f]*\Z",
        f"the body is a field of a form as `curl -d` writes it; {_SEND_BYTES}",
    ),
    (
        rb"@?[\w./\\ -]{1,200}\.(?i:jpe?g|png|webp)\s*\Z",
        f"the body is the name of a file; {_SEND_BYTES}",
    ),
)
_PATTERNS = [(re.compile(pattern), sentence) for pattern, sentence in _HINTS]
# PNG's beginning has line ends to lose; the others have bytes of 0 in their first twenty, which curl takes out too.
_PICTURES = (b"\xff\xd8\xff", b"\x89PNG", b"RIFF")
# Of so many bytes none is CR or LF in one of two thousand files that have not lost them.
_LONG = 1000


def find_hint(body: bytes, field: str = FIELD_NAME) -> str | None:
    """Name what a body that is no picture looks like; None where it looks like nothing that is known here.

    Args:
        body: of the request, or what its form has in the picture's place.
        field: of a form that may hold the picture.
    """
    beginning = body[:_BEGINNING]
    if beginning.startswith(_PICTURES):
        if b"\r" in body or b"\n" in body or (b"\0" in body and len(body) < _LONG and b"PNG\x1a" not in beginning):
            return None
        sentence = f"the picture has lost its line ends, as `curl -d` takes them out of files; {_SEND_BYTES}"
    else:
        sentence = next((sentence for pattern, sentence in _PATTERNS if pattern.match(beginning)), "")
    return sentence.replace(f"{FIELD_NAME}=@", f"{field}=@") or None
