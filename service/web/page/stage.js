// The canvas that people look at: drawn anew when a slider, the answer or the room for it changes.

import { drawBoxes, tint } from "./draw.js";
import { makeCanvas } from "./picture.js";

const MAX_ENLARGED = 2; // times; small pictures are not blown up further
const MAX_HEIGHT = 0.72; // of the window's

export class Stage {
  /**
   * @param {HTMLCanvasElement} canvas
   * @param {() => object} look what is to be drawn: {picture, ids, shown, opacity, detections}, all but the first
   *   optional; null draws nothing
   */
  constructor(canvas, look) {
    this.canvas = canvas;
    this.look = look;
    this.waiting = false;
    new ResizeObserver(() => this.redraw()).observe(canvas.parentElement);
    addEventListener("resize", () => this.redraw());
  }

  /** Draw before the next frame, however often it is asked for until then. */
  redraw() {
    if (this.waiting) return;
    this.waiting = true;
    requestAnimationFrame(() => {
      this.waiting = false;
      this.draw();
    });
  }

  draw() {
    const look = this.look();
    if (!look) return;
    const { width, height } = look.picture;
    const room = this.canvas.parentElement.clientWidth;
    const scale = Math.min(room / width, Math.max(240, innerHeight * MAX_HEIGHT) / height, MAX_ENLARGED);
    const dots = devicePixelRatio;
    const size = [width, height].map((side) => Math.max(1, Math.round(side * scale * dots)));
    this.canvas.style.width = `${size[0] / dots}px`;
    this.canvas.style.height = `${size[1] / dots}px`;
    if (this.canvas.width !== size[0]) this.canvas.width = size[0];
    if (this.canvas.height !== size[1]) this.canvas.height = size[1];
    paint(this.canvas, look, dots);
  }

  /** What is on screen, in pixels of the picture (at most 1280 a side), as a PNG. */
  toPng() {
    const look = this.look();
    const canvas = makeCanvas(look.picture.canvas.width, look.picture.canvas.height);
    paint(canvas, look, Math.max(1, Math.min(canvas.width, canvas.height) / 400));
    return new Promise((resolve) => canvas.toBlob(resolve, "image/png"));
  }
}

function paint(canvas, { picture, ids, shown, opacity, detections }, unit) {
  const context = canvas.getContext("2d");
  context.imageSmoothingQuality = "high";
  context.drawImage(picture.canvas, 0, 0, canvas.width, canvas.height);
  if (ids) {
    const layer = tint(ids, picture.canvas.width, picture.canvas.height, shown, opacity);
    context.drawImage(layer, 0, 0, canvas.width, canvas.height);
  }
  if (detections) drawBoxes(context, detections, canvas.width / picture.width, unit);
}
