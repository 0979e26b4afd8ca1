"""Every bomb by name: pixels, scans, chunks, profiles, frames and extreme sides, in five formats."""

from __future__ import annotations

import io
import struct

from PIL import Image

from tests.attacks import bombs


def make_bombs() -> list[tuple[str, bytes]]:
    """Files that would cost much or that are none of ours; none of them may be decoded."""
    return [*_pixels(), *_sides(), *_scans(), *_chunks(), *_frames(), *_others()]


def _pixels() -> list[tuple[str, bytes]]:
    sizes = {"26 MP": (5200, 5000), "268 MP": (16384, 16384)}
    return [
        *((f"PNG of {name}", bombs.pixel_bomb_png(*size)) for name, size in {"26 MP": (5200, 5000)}.items()),
        *((f"PNG that says {name}", bombs.png(*size, pixels=b"")) for name, size in sizes.items()),
        *((f"WebP of {name}", bombs.pixel_bomb_webp(min(w, 16383), min(h, 16383))) for name, (w, h) in sizes.items()),
        *(
            (f"JPEG that says {name}", bombs.jpeg(bombs.jpeg_frame(*size), bombs.jpeg_scan()))
            for name, size in sizes.items()
        ),
        ("interlaced PNG of 26 MP", bombs.interlaced_png(5200, 5000)),
        ("progressive JPEG of 268 MP", bombs.jpeg(bombs.jpeg_frame(16384, 16384, code=0xC2), bombs.jpeg_scan())),
        ("PNG of 4 billion by 4 billion", bombs.png(2**31 - 1, 2**31 - 1, pixels=b"")),
        ("JPEG of 65535 by 65535", bombs.jpeg(bombs.jpeg_frame(65535, 65535), bombs.jpeg_scan())),
    ]


def _sides() -> list[tuple[str, bytes]]:
    return [
        ("PNG, a line of 1 by 20000", bombs.png(1, 20_000)),
        ("PNG, a line of 20000 by 1", bombs.png(20_000, 1)),
        ("PNG of 1 by 201", bombs.png(1, 201)),
        ("WebP of 16383 by 1", bombs.pixel_bomb_webp(16383, 1)),
        ("JPEG of 64800 by 32", bombs.jpeg(bombs.jpeg_frame(64800, 32), bombs.jpeg_scan())),
        ("JPEG of no height", bombs.jpeg(bombs.jpeg_frame(100, 0), bombs.jpeg_scan())),
        ("PNG of no width", bombs.png(0, 100, pixels=b"")),
    ]


def _scans() -> list[tuple[str, bytes]]:
    return [
        ("1000 scans of 16 MP", bombs.scan_bomb()),
        ("100 scans of 16 MP", bombs.scan_bomb(repeats=100)),
        ("200 scans of 0.1 MP", bombs.scan_bomb(300, 300, repeats=200)),
        ("30000 scans of 8 by 8", bombs.scan_bomb(8, 8, repeats=30_000)),
        ("scans without data", bombs.jpeg(bombs.jpeg_frame(4000, 4000, code=0xC2), bombs.jpeg_scan() * 10_000)),
        ("10 MB of segments", bombs.jpeg(bombs.jpeg_segment(0xE1, b"x" * 4) * 1_200_000)[:9_999_000]),
        ("10 MB of fill bytes", b"\xff\xd8" + b"\xff" * 9_900_000),
    ]


def _chunks() -> list[tuple[str, bytes]]:
    names = (b"iCCP", b"zTXt", b"iTXt")
    return [
        *((f"PNG whose {name.decode()} unpacks to 100 MB", bombs.packed_png(name, 100 * 2**20)) for name in names),
        *((f"PNG with 64 {name.decode()} of 900 kB", bombs.packed_png(name, 900_000, count=64)) for name in names[1:]),
        ("PNG with zTXt behind its pixels", bombs.packed_png(b"zTXt", 100 * 2**20, behind=True)),
        ("PNG of 800000 chunks", bombs.many_chunks_png(800_000)),
        ("PNG of 200000 unknown chunks", bombs.many_chunks_png(200_000, b"ruNk", b"x" * 20)),
        ("PNG whose chunk is longer than the file", bombs.png(8, 8, struct.pack(">I", 2**31 - 1) + b"tEXtabc")),
    ]


def _frames() -> list[tuple[str, bytes]]:
    return [
        ("WebP of 10000 frames", bombs.animated_webp(10_000)),
        ("WebP of two frames of 16 MP", bombs.animated_webp(2, 4000, 4000)),
        ("APNG that says 10000 frames", bombs.apng(10_000)),
        ("APNG that says 4 billion frames", bombs.apng(2**32 - 1)),
    ]


def _others() -> list[tuple[str, bytes]]:
    file = io.BytesIO()
    tiny = Image.new("P", (4, 4))
    tiny.save(file, "GIF", save_all=True, append_images=[Image.new("P", (4, 4), n % 9) for n in range(300)])
    gif = b"GIF89a" + struct.pack("<HH", 65535, 65535) + b"\0\0\0;"
    tiff = b"II*\0\x08\0\0\0\x02\0" + struct.pack("<HHII", 256, 4, 1, 2**31) + struct.pack("<HHII", 257, 4, 1, 2**31)
    return [
        ("GIF of 300 frames", file.getvalue()),
        ("GIF of 65535 by 65535", gif),
        ("TIFF of 2 billion by 2 billion", tiff + bytes(4)),
        (
            "BMP of 2 billion by 2 billion",
            b"BM" + struct.pack("<IHHIIiiHH", 54, 0, 0, 54, 40, 2**31 - 1, 2**31 - 1, 1, 24),
        ),
        ("SVG that refers to itself", b"<svg xmlns='http://www.w3.org/2000/svg'><use href='#a'/></svg>"),
        ("PostScript", b"%!PS-Adobe-3.0 EPSF-3.0\n{} loop\n"),
        ("zip", b"PK\x03\x04" + bytes(26)),
        ("PDF with a JPEG behind it", b"%PDF-1.7\n" + bombs.scan_bomb(64, 64)),
    ]
