"""What every answer tells browsers: not to guess its type, frame it, keep it, or load into a page what is not ours."""

from __future__ import annotations

from typing import TypeAlias

RawHeaders: TypeAlias = tuple[tuple[bytes, bytes], ...]

_NOTHING = "default-src 'none'; frame-ancestors 'none'"
# blob: and data: are pictures that a page has made or been given, and the film of a camera.
_PAGE = (
    f"{_NOTHING}; base-uri 'none'; form-action 'none'; script-src 'self'; style-src 'self'; connect-src 'self'; "
    "img-src 'self' blob: data:; media-src 'self' blob:"
)


def _make(policy: str, cache: str) -> RawHeaders:
    return (
        (b"x-content-type-options", b"nosniff"),
        (b"referrer-policy", b"no-referrer"),
        (b"x-frame-options", b"DENY"),
        (b"content-security-policy", policy.encode()),
        (b"cache-control", cache.encode()),
    )


# Whatever depends on a picture, a model or a key is nobody's to keep; files are asked for again by their ETag.
_ANSWER = _make(_NOTHING, "no-store")
_FILE = _make(_NOTHING, "no-cache")
_PAGES = dict.fromkeys(("/", "/docs"), _make(_PAGE, "no-cache"))


def find_security_headers(path: str) -> RawHeaders:
    """Return the headers for answers of a path, as the router sees it."""
    return _PAGES.get(path) or (_FILE if path.startswith("/static/") else _ANSWER)
