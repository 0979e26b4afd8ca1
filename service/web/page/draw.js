// What the model saw, drawn over a picture: tinted classes with an outline, boxes with label and score.

import { makeCanvas } from "./picture.js";

const colours = new Map();

/**
 * The colour of a label, the same in mask, boxes and lists.
 * Not that of VOC's palette: half of it is too dark to be told apart once it is mixed with a picture.
 * @returns {[number, number, number]} RGB, 0..255
 */
export function colourOf(label) {
  // Steps of the golden ratio keep those who come one after another far apart on the colour wheel.
  if (!colours.has(label)) colours.set(label, fromHue((0.47 + colours.size * 0.618034) % 1));
  return colours.get(label);
}

export const css = (colour) => `rgb(${colour.join(" ")})`;

// Black or white, whichever stands out more (luma of ITU-R BT.601).
const readableOn = ([red, green, blue]) => (0.299 * red + 0.587 * green + 0.114 * blue > 128 ? "#101418" : "#fff");

function fromHue(hue) {
  return [5, 3, 1].map((offset) => {
    const k = (offset + hue * 6) % 6;
    return Math.round(255 * (1 - 0.75 * Math.max(0, Math.min(k, 4 - k, 1)))); // HSV with saturation 0.75, value 1
  });
}

/**
 * Tint the classes of a mask.
 * @param {Uint8Array} ids row by row
 * @param {Map<number, [number, number, number]>} shown class id -> colour; other classes stay clear
 * @param {number} opacity 0..1; outlines have the whole colour, unless it is 0
 * @returns {HTMLCanvasElement} width x height
 */
export function tint(ids, width, height, shown, opacity) {
  const image = new ImageData(width, height);
  const pixels = new Uint32Array(image.data.buffer);
  const inside = new Uint32Array(256);
  const outline = new Uint32Array(256);
  for (const [id, colour] of shown) {
    inside[id] = pack(colour, Math.round(opacity * 255));
    outline[id] = pack(colour, opacity ? 255 : 0);
  }
  for (let y = 0, i = 0; y < height; y++) {
    for (let x = 0; x < width; x++, i++) {
      const id = ids[i];
      const edge =
        (x > 0 && ids[i - 1] !== id) || (x < width - 1 && ids[i + 1] !== id) ||
        (y > 0 && ids[i - width] !== id) || (y < height - 1 && ids[i + width] !== id);
      pixels[i] = edge ? outline[id] : inside[id];
    }
  }
  const canvas = makeCanvas(width, height);
  canvas.getContext("2d").putImageData(image, 0, 0);
  return canvas;
}

const bytes = new Uint8ClampedArray(4);
const packed = new Uint32Array(bytes.buffer); // in the byte order of this machine, as ImageData has it
function pack(colour, alpha) {
  bytes.set([...colour, alpha]);
  return packed[0];
}

/**
 * Draw boxes, the best one last, on top.
 * @param {CanvasRenderingContext2D} context
 * @param {object[]} detections of the answer, highest score first
 * @param {number} scale pixels of the canvas per pixel of the picture
 * @param {number} unit pixels of the canvas that look like one on paper
 */
export function drawBoxes(context, detections, scale, unit) {
  const boxes = detections.map(({ box, label, score }) => ({
    sides: box.map((side) => Math.round(side * scale)), // whole, so that lines are sharp
    colour: css(colourOf(label)),
    ink: readableOn(colourOf(label)),
    text: `${label} ${formatShare(score)}`,
  }));
  context.lineJoin = "round";
  for (const { sides, colour } of [...boxes].reverse()) drawBox(context, sides, colour, unit);
  context.font = `600 ${12 * unit}px system-ui, sans-serif`;
  context.textBaseline = "middle";
  const tags = [];
  for (const { sides, colour, ink, text } of boxes) {
    const tag = placeTag(context, sides, text, unit, tags);
    tags.push(tag);
    context.fillStyle = colour;
    context.fillRect(tag.x, tag.y, tag.width, tag.height);
    context.fillStyle = ink;
    context.fillText(text, tag.x + 5 * unit, tag.y + tag.height / 2 + unit / 2);
  }
}

function drawBox(context, [x1, y1, x2, y2], colour, unit) {
  for (const [style, width] of [["rgb(20 20 20 / 0.6)", 4 * unit], [colour, 2 * unit]]) {
    context.strokeStyle = style; // a dark rim keeps the line visible on a picture of its own colour
    context.lineWidth = width;
    context.strokeRect(x1, y1, x2 - x1, y2 - y1);
  }
}

// Above the box, or inside it where there is no room above; below the tags that lie there; never outside the picture.
function placeTag(context, [x1, y1], text, unit, others) {
  const width = context.measureText(text).width + 10 * unit;
  const height = 19 * unit;
  const x = Math.max(0, Math.min(x1 - unit, context.canvas.width - width));
  const covers = (one, y) => x < one.x + one.width && one.x < x + width && y < one.y + one.height && one.y < y + height;
  let y = y1 >= height ? y1 - height : y1;
  for (let below = others.find((one) => covers(one, y)); below; below = others.find((one) => covers(one, y))) {
    y = below.y + below.height;
  }
  return { x, y: Math.min(y, context.canvas.height - height), width, height };
}

/** 0..1 as people read it. */
export function formatShare(share) {
  const percent = share * 100;
  return percent > 0 && percent < 1 ? "<\u00a01\u00a0%" : `${Math.round(percent)}\u00a0%`;
}
