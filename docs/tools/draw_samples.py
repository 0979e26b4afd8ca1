"""Draw what the embedded model answers for the pictures that ship with it; the README shows the result.

Run from the repository's root: `.venv/bin/python docs/tools/draw_samples.py`
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
from PIL import Image

from service.answers.render import overlay
from service.engine.engine import load_engine
from service.engine.postprocess import Answer
from service.pictures.imaging import UInt8Array, decode, letterbox
from service.pictures.resizing import resize
from service.settings import Settings

PICTURES = Path(__file__).parents[2] / "service" / "models" / "golden"
HEIGHT = 300  # pixels of each picture in the strip
GAP = 6
OUT = Path(__file__).parents[1] / "pictures" / "samples.jpg"


def main() -> None:
    """Write the strip of all shipped pictures."""
    engine = load_engine(Settings().model)
    contract = engine.contract
    strip: list[UInt8Array] = []
    for path in sorted(PICTURES.glob("*.jpg")):
        image = decode(path.read_bytes())
        square, place = letterbox(image, contract.input_size, contract.letterbox.fill)
        (prediction,) = engine.predict([square])
        answer = Answer(prediction, place, contract)
        found = answer.detections(score_threshold=None, max_detections=100)
        drawn = overlay(image, answer.mask(), found, names=dict(enumerate(contract.segmentation_classes)))
        strip.append(resize(drawn, round(drawn.shape[1] * HEIGHT / drawn.shape[0]), HEIGHT))
        strip.append(np.full((HEIGHT, GAP, 3), 255, dtype=np.uint8))
    Image.fromarray(np.concatenate(strip[:-1], axis=1)).save(OUT, quality=88, optimize=True)


if __name__ == "__main__":
    main()
