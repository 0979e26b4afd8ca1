"""Photograph the doctor's page of a small detection set, cut out of the shipped pictures, with three faults planted.

Run from the repository's root, with Chromium installed: `.venv/bin/python docs/tools/draw_doctor_page.py`
"""

from __future__ import annotations

import contextlib
import json
import shutil
import subprocess
import tempfile
from pathlib import Path

from PIL import Image

from training.data.doctor.examine import examine
from training.data.doctor.html.page import write_page

PICTURES = Path(__file__).parents[2] / "service" / "models" / "golden"
OUT = Path(__file__).parents[1] / "pictures" / "doctor.png"
# What is on each picture: class and xyxy in its pixels.
OBJECTS = {
    "astronaut.jpg": [("person", (5, 5, 500, 511)), ("airplane", (372, 0, 462, 300))],
    "chelsea.jpg": [("cat", (5, 2, 448, 298))],
    "coffee.jpg": [("cup", (110, 18, 480, 385)), ("spoon", (350, 55, 455, 330))],
    "rocket.jpg": [("airplane", (305, 120, 345, 415))],
}
NAMES = {"train": ["airplane", "cat", "cup", "person", "spoon"], "val": ["person", "spoon", "cat", "cup", "airplane"]}
CHROMIUM = ["--headless", "--no-sandbox", "--disable-gpu", "--no-first-run", "--disable-background-networking"]


def main() -> None:
    """Write the sets, examine them, and photograph the page."""
    chromium = shutil.which("chromium")
    if chromium is None:
        raise SystemExit("draw_doctor_page: chromium is not installed; it photographs the page")
    with tempfile.TemporaryDirectory() as folder:
        root = Path(folder)
        for split, offsets in (("train", (0, 6, 12)), ("val", (18,))):
            write_split(root / "shop_window" / split, split, offsets)
        page = root / "doctor.html"
        with contextlib.chdir(root):  # so that the page names no folder of this machine
            write_page(examine(Path("shop_window")), page)
        options = [f"--user-data-dir={root / 'browser'}", "--window-size=1100,2390", f"--screenshot={OUT}"]
        subprocess.run([chromium, *CHROMIUM, *options, page.as_uri()], check=True, capture_output=True)  # noqa: S603 - fixed words
    with Image.open(OUT) as shot:
        shot.convert("RGB").quantize(256).save(OUT, optimize=True)


def write_split(folder: Path, split: str, offsets: tuple[int, ...]) -> None:
    """Write each picture once per offset, cut by so many pixels at the left, in COCO's layout."""
    (folder / "data").mkdir(parents=True)
    images: list[dict[str, object]] = []
    annotations: list[dict[str, object]] = []
    for name, objects in OBJECTS.items():
        # The cat is cut the same way in both splits: a picture on both sides.
        for offset in (0,) if (split, name) == ("val", "chelsea.jpg") else offsets:
            with Image.open(PICTURES / name) as picture:
                cut = picture.crop((offset, 0, *picture.size))
            file_name = f"{Path(name).stem}-{offset}.jpg"
            cut.save(folder / "data" / file_name, quality=90)
            images.append({"id": len(images), "file_name": file_name, "width": cut.width, "height": cut.height})
            for label, (x1, y1, x2, y2) in objects:
                left = max(x1 - offset, 0)
                box = [left, y1, 1.5 if (label, offset) == ("spoon", 6) else x2 - offset - left, y2 - y1]
                annotation = {"image_id": images[-1]["id"], "category_id": NAMES[split].index(label), "bbox": box}
                annotations.append({"id": len(annotations), "iscrowd": 0, **annotation})
    categories = [{"id": index, "name": name} for index, name in enumerate(NAMES[split])]
    labels = {"images": images, "annotations": annotations, "categories": categories}
    (folder / "labels.json").write_text(json.dumps(labels))


if __name__ == "__main__":
    main()
