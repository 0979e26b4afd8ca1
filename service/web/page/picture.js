// Files as canvases: the picture, upright and no larger than a screen needs, and the mask as class ids of the same size.

import { takeOrientation, turn } from "./upright.js";

const MAX_SIDE = 1280; // pixels; masks of more cost milliseconds that nobody sees

/**
 * Decode a picture.
 * @param {Blob} blob
 * @returns {Promise<{canvas: HTMLCanvasElement, width: number, height: number}>} sizes are those of the upright original
 * @throws {Error} this browser cannot decode it
 */
export async function loadPicture(blob) {
  let orientation = 1;
  if (!["image/jpeg", "image/png"].includes(blob.type)) {
    const taken = takeOrientation(await blob.arrayBuffer());
    orientation = taken.orientation;
    blob = new Blob([taken.file], { type: blob.type });
  }
  const url = URL.createObjectURL(blob);
  try {
    const image = await decode(url);
    const lying = fit(image.naturalWidth, image.naturalHeight);
    const turned = orientation > 4;
    const canvas = makeCanvas(turned ? lying.height : lying.width, turned ? lying.width : lying.height);
    const context = canvas.getContext("2d");
    context.fillStyle = "white"; // transparency lies over white, as in the service
    context.fillRect(0, 0, canvas.width, canvas.height);
    context.imageSmoothingQuality = "high";
    context.setTransform(...turn(orientation, lying.width, lying.height));
    context.drawImage(image, 0, 0, lying.width, lying.height);
    const size = [image.naturalWidth, image.naturalHeight];
    const [width, height] = turned ? size.reverse() : size;
    return { canvas, width, height };
  } finally {
    URL.revokeObjectURL(url);
  }
}

/** Grey of the size that the service found, where the browser cannot show what the service could read. */
export function makeBlank({ width, height }) {
  const size = fit(width, height);
  const canvas = makeCanvas(size.width, size.height);
  const context = canvas.getContext("2d");
  context.fillStyle = "#888";
  context.fillRect(0, 0, canvas.width, canvas.height);
  return { canvas, width, height };
}

/**
 * Read the class ids out of a palette PNG by its colours, which are those of PASCAL VOC.
 * @param {string} base64 the PNG
 * @param {{width: number, height: number}} size wanted; the nearest pixels are taken
 * @returns {Promise<Uint8Array>} width * height ids, row by row
 */
export async function readClassIds(base64, { width, height }) {
  const image = await decode(`data:image/png;base64,${base64}`);
  const context = makeCanvas(width, height).getContext("2d", { willReadFrequently: true });
  context.imageSmoothingEnabled = false;
  context.drawImage(image, 0, 0, width, height);
  const { data } = context.getImageData(0, 0, width, height);
  const ids = new Uint8Array(width * height);
  for (let i = 0, at = 0; i < ids.length; i++, at += 4) {
    ids[i] = ID_OF[(third(data[at]) << 6) | (third(data[at + 1]) << 3) | third(data[at + 2])];
  }
  return ids;
}

// The palette's channels have three bits at most, the highest; rounding forgives browsers that blur what pages read.
const third = (value) => Math.min(7, (value + 16) >> 5);

// Bit 3k + c of an id is bit 7 - k of colour c (VOC devkit, VOClabelcolormap.m).
const ID_OF = new Uint8Array(512);
for (let id = 0; id < 256; id++) {
  let colour = 0;
  for (let bit = 0; bit < 8; bit++) {
    if ((id >> bit) & 1) colour |= 1 << (8 - 3 * (bit % 3) - Math.floor(bit / 3));
  }
  ID_OF[colour] = id;
}

function fit(width, height) {
  const scale = Math.min(1, MAX_SIDE / Math.max(width, height));
  return { width: Math.max(1, Math.round(width * scale)), height: Math.max(1, Math.round(height * scale)) };
}

async function decode(url) {
  const image = new Image();
  image.src = url;
  await image.decode();
  return image;
}

export function makeCanvas(width, height) {
  const canvas = document.createElement("canvas");
  Object.assign(canvas, { width, height });
  return canvas;
}
