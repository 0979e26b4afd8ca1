// Frames of a camera, one at a time: the next is taken when the one before has its answer.

import { makeCanvas } from "./picture.js";

const MAX_SIDE = 640; // pixels of a frame; the network looks at fewer
const QUALITY = 0.85; // of its JPEG
const PACE_OF = 10; // answers that the pace is measured over

const WORDS = {
  NotAllowedError: "The browser was not allowed to use the camera; allow it in the site's settings.",
  NotFoundError: "There is no camera on this machine.",
  NotReadableError: "The camera is taken by another program.",
  OverconstrainedError: "There is no camera on this machine that fits.",
};

export class Camera {
  /**
   * @param {object} to what the camera tells
   * @param {(frame: Blob) => Promise<number>} to.ask gives seconds to wait before the next frame; below 0 ends it
   * @param {(perSecond: number) => void} to.pace after every answer but the first
   * @param {(words: string) => void} to.ended it is off; the words say why, and are empty where a person switched it off
   */
  constructor(to) {
    this.to = to;
    this.stream = null;
    this.turn = 0; // counts starts and stops, so that what belongs to an earlier one knows it
    this.running = false;
  }

  async start() {
    const turn = ++this.turn;
    this.running = true;
    const { mediaDevices } = navigator;
    if (!mediaDevices) return this.stop("Browsers lend the camera to secure pages only: open this one by https, or as localhost.");
    try {
      const stream = await mediaDevices.getUserMedia({ audio: false, video: { facingMode: "environment", width: { ideal: MAX_SIDE } } });
      if (this.turn === turn) await this.run(stream, turn);
      else close(stream);
    } catch (error) {
      if (this.turn === turn) this.stop(WORDS[error.name] ?? `The camera does not work: ${error.message}`);
    }
  }

  /** Switch it off; nothing happens where it is off. */
  stop(words = "") {
    if (!this.running) return;
    this.turn++;
    this.running = false;
    if (this.stream) close(this.stream);
    this.stream = null;
    this.to.ended(words);
  }

  async run(stream, turn) {
    this.stream = stream;
    stream.getVideoTracks()[0].addEventListener("ended", () => this.stop("The camera was taken away."));
    const video = Object.assign(document.createElement("video"), { muted: true, playsInline: true, srcObject: stream });
    await video.play();
    const answered = [];
    while (this.turn === turn) {
      const frame = await grab(video);
      if (this.turn !== turn) return;
      const waitS = await this.to.ask(frame);
      if (this.turn !== turn) return;
      if (waitS < 0) return this.stop();
      if (waitS > 0) {
        answered.length = 0;
        await new Promise((resolve) => setTimeout(resolve, waitS * 1000));
        continue;
      }
      answered.push(performance.now());
      if (answered.length > PACE_OF) answered.shift();
      if (answered.length > 1) this.to.pace(((answered.length - 1) * 1000) / (answered.at(-1) - answered[0]));
    }
  }
}

function close(stream) {
  for (const track of stream.getTracks()) track.stop();
}

function grab(video) {
  const scale = Math.min(1, MAX_SIDE / Math.max(video.videoWidth, video.videoHeight));
  const canvas = makeCanvas(Math.round(video.videoWidth * scale), Math.round(video.videoHeight * scale));
  canvas.getContext("2d").drawImage(video, 0, 0, canvas.width, canvas.height);
  return new Promise((resolve) => canvas.toBlob(resolve, "image/jpeg", QUALITY));
}
