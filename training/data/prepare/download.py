"""Archives over HTTP that go on where they were interrupted, and count only when size and checksum are right.

torchvision's own downloader begins again from the first byte, which is hours for COCO; its addresses and checksums
are used, its code is not.
"""

from __future__ import annotations

import hashlib
import http.client
import re
import urllib.error
import urllib.request
from collections.abc import Callable
from pathlib import Path
from typing import TypeAlias

from training.data.prepare.releases import Part, PrepareError, Release

ReportProgress: TypeAlias = Callable[[str, int, int], None]  # archive, bytes that are here, bytes in all

_BLOCK_BYTES = 1 << 20
_TIMEOUT_S = 60.0
_MAX_FAILURES = 5  # in a row, without a byte in between


def download_release(release: Release, cache: Path, report: ReportProgress, mirror: str | None = None) -> None:
    """Bring every archive of a release into `cache`; those that are there stay.

    Args:
        release: what to bring.
        cache: folder for the archives, and for `.part` files of interrupted ones.
        report: told how far it is.
        mirror: address that has the archives by their official names, in place of the official ones.

    Raises:
        PrepareError: a server does not answer or breaks off again and again, or what came is not the archive.
    """
    cache.mkdir(parents=True, exist_ok=True)
    for part in release.parts:
        url = f"{mirror.rstrip('/')}/{part.archive}" if mirror else part.url
        download_part(part, url, cache, report)


def download_part(part: Part, url: str, cache: Path, report: ReportProgress) -> None:
    """Bring one archive into `cache`, or raise as `download_release` does."""
    target = cache / part.archive
    if target.is_file():  # it got its name after its size and checksum were found right
        return
    partial = cache / f"{part.archive}.part"
    failures = 0
    while True:
        here = _size(partial)
        try:
            total = _fetch_rest(url, partial, lambda here, total: report(part.archive, here, total))
            break
        except urllib.error.HTTPError as error:
            raise PrepareError(f"{url}: {error}; --from takes archives that you have") from error
        except (OSError, http.client.HTTPException) as error:
            failures = 1 if _size(partial) > here else failures + 1
            if failures == _MAX_FAILURES:
                raise PrepareError(f"{url}: {error}; run the command again to go on where it stopped") from error
    _check(part, url, partial, total)
    partial.rename(target)


def _fetch_rest(url: str, partial: Path, report: Callable[[int, int], None]) -> int:
    """Append what is missing; returns the size that the server says the archive has."""
    here = _size(partial)
    headers = {"User-Agent": "unihead-data"} | ({"Range": f"bytes={here}-"} if here else {})
    try:
        response = urllib.request.urlopen(urllib.request.Request(url, headers=headers), timeout=_TIMEOUT_S)  # noqa: S310 - addresses are ours, or a mirror that the user names
    except urllib.error.HTTPError as error:
        if error.code != http.client.REQUESTED_RANGE_NOT_SATISFIABLE:
            raise
        return int(re.sub(r".*/", "", error.headers.get("Content-Range", "")) or here)
    with response:
        if response.status != http.client.PARTIAL_CONTENT:
            here = 0  # the server knows no ranges and sends the whole archive
        if (length := response.headers["Content-Length"]) is None:
            raise PrepareError(
                f"{url}: the server does not say how long the archive is; --from takes one that you have"
            )
        total = here + int(length)
        with partial.open("ab" if here else "wb") as stream:
            report(here, total)
            while here < total:
                if not (block := response.read(min(_BLOCK_BYTES, total - here))):
                    raise ConnectionError(f"the server broke off after {here} of {total} bytes")
                here += stream.write(block)
                report(here, total)
    return total


def _size(path: Path) -> int:
    return path.stat().st_size if path.exists() else 0


def _check(part: Part, url: str, partial: Path, total: int) -> None:
    """Delete what is not the archive, so that the next run begins anew."""
    size = partial.stat().st_size
    with partial.open("rb") as stream:
        digest = hashlib.file_digest(stream, lambda: hashlib.md5(usedforsecurity=False)).hexdigest()
    if size == total and part.md5 in {None, digest}:
        return
    partial.unlink()
    if size != total:
        raise PrepareError(f"{url}: {size} bytes came, {total} were announced; deleted, run the command again")
    raise PrepareError(f"{url}: the MD5 is {digest}; wanted {part.md5}; deleted, run the command again")
