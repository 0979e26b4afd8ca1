// WebP pictures the right way up: browsers turn JPEG and PNG as EXIF says, and leave WebP lying.

const ORIENTATION = 0x0112;
const TAG_BYTES = 12; // of one entry of a TIFF directory

/**
 * Find the EXIF orientation of a WebP file and hide it, so that no browser turns the picture a second time.
 * @param {ArrayBuffer} file
 * @returns {{orientation: number, file: ArrayBuffer}} 1..8, and the same picture without EXIF
 */
export function takeOrientation(file) {
  const view = new DataView(file);
  if (file.byteLength < 12 || word(view, 0) !== "RIFF" || word(view, 8) !== "WEBP") return { orientation: 1, file };
  for (let at = 12; at + 8 <= file.byteLength; ) {
    const size = view.getUint32(at + 4, true);
    if (word(view, at) === "EXIF" && at + 8 + size <= file.byteLength) {
      const orientation = readOrientation(new DataView(file, at + 8, size));
      const copy = file.slice(0);
      new Uint8Array(copy).set([0x58, 0x58, 0x58, 0x58], at); // a chunk named XXXX is nobody's business
      return { orientation, file: copy };
    }
    at += 8 + size + (size % 2);
  }
  return { orientation: 1, file };
}

function readOrientation(exif) {
  try {
    const start = word(exif, 0) === "Exif" ? 6 : 0;
    const little = exif.getUint16(start) === 0x4949;
    const directory = start + exif.getUint32(start + 4, little);
    for (let i = 0; i < exif.getUint16(directory, little); i++) {
      const entry = directory + 2 + i * TAG_BYTES;
      if (exif.getUint16(entry, little) === ORIENTATION) {
        const value = exif.getUint16(entry + 8, little);
        return value >= 1 && value <= 8 ? value : 1;
      }
    }
  } catch (error) {
    if (!(error instanceof RangeError)) throw error; // cut short: as if it said nothing
  }
  return 1;
}

/** How a canvas of the upright size must be turned before the lying picture is drawn at 0, 0; as setTransform takes it. */
export function turn(orientation, width, height) {
  return {
    1: [1, 0, 0, 1, 0, 0],
    2: [-1, 0, 0, 1, width, 0],
    3: [-1, 0, 0, -1, width, height],
    4: [1, 0, 0, -1, 0, height],
    5: [0, 1, 1, 0, 0, 0],
    6: [0, 1, -1, 0, height, 0],
    7: [0, -1, -1, 0, height, width],
    8: [0, -1, 1, 0, 0, width],
  }[orientation];
}

const word = (view, at) => String.fromCharCode(...[0, 1, 2, 3].map((i) => view.getUint8(at + i)));
