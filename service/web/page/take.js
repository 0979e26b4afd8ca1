// What can be taken away: a command that asks the same by curl, and files.

import { predictUrl, readKey } from "./service.js";

/**
 * Write a command for a shell that gets the answer on screen.
 * @param {{name: string, url: string}} source the file's name, or the address that it came from
 * @param {string} type of the picture
 * @param {number} scoreThreshold
 */
export function writeCurl(source, type, scoreThreshold) {
  const from = source.url ? `curl -sS ${quote(source.url)} | ` : "";
  const body = quote(source.url ? "@-" : `@${source.name}`);
  const key = readKey() ? ' -H "Authorization: Bearer $UNIHEAD_KEY"' : "";
  const header = type ? ` -H ${quote(`Content-Type: ${type}`)}` : "";
  return `${from}curl -sS --data-binary ${body}${header}${key} ${quote(predictUrl(scoreThreshold))}`;
}

const quote = (text) => `'${text.replaceAll("'", "'\\''")}'`;

/** Copy a text; where the browser does not let pages do that, select it in its element. */
export async function copy(element) {
  try {
    await navigator.clipboard.writeText(element.textContent);
    return "Copied.";
  } catch {
    getSelection().selectAllChildren(element);
    return "Selected; copy it with the keyboard.";
  }
}

/** Hand a file to the browser to keep. */
export function download(blob, name) {
  const url = URL.createObjectURL(blob);
  const link = Object.assign(document.createElement("a"), { href: url, download: name });
  link.click();
  setTimeout(() => URL.revokeObjectURL(url), 60_000); // not at once: the browser may still be reading
}

/** A PNG of the answer as a file. */
export function fromBase64(base64, type) {
  const text = atob(base64);
  return new Blob([Uint8Array.from(text, (character) => character.charCodeAt(0))], { type });
}
