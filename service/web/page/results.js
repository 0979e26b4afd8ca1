// The answer in lists and bars, and in a sentence for those who listen.

import { colourOf, css, formatShare } from "./draw.js";

const STAGES = ["queue", "decode", "preprocess", "forward", "postprocess", "encode"];
const BACKGROUND = 0; // the class id of what belongs to no class

/** The classes of the mask that can be tinted, with their colours. */
export function findTints(segments, hidden) {
  const tinted = segments.filter(({ label_id: id }) => id !== BACKGROUND && !hidden.has(id));
  return new Map(tinted.map(({ label_id: id, label }) => [id, colourOf(label)]));
}

/** List the classes of the mask by share; `toggle` is called with the id of one that was pressed. */
export function listSegments(list, segments, hidden, toggle) {
  fill(list, segments, ({ label, label_id: id, fraction }) => {
    const still = id === BACKGROUND;
    const row = still ? make("div", { className: "row" }) : make("button", { type: "button", className: "row" });
    const swatch = make("span", { className: "swatch" });
    row.append(swatch, make("span", { className: "name" }, label), make("span", { className: "share" }, formatShare(fraction)));
    if (!still) {
      swatch.style.background = swatch.style.borderColor = css(colourOf(label));
      row.setAttribute("aria-pressed", String(!hidden.has(id)));
      row.addEventListener("click", () => {
        toggle(id);
        row.setAttribute("aria-pressed", String(!hidden.has(id)));
      });
    }
    return row;
  });
}

export function listBoxes(list, detections) {
  fill(list, detections, ({ label, score }) => {
    const row = make("div", { className: "row" });
    const swatch = make("span", { className: "swatch frame" });
    swatch.style.borderColor = css(colourOf(label));
    row.append(swatch, make("span", { className: "name" }, label), make("span", { className: "share" }, formatShare(score)));
    return row;
  });
}

export function listClasses(list, classes) {
  fill(list, classes, ({ label, probability }) => {
    const row = make("div", { className: "bar" });
    const track = make("div", { className: "track" });
    const level = make("div", { className: "level" });
    level.style.width = `${probability * 100}%`;
    track.append(level);
    row.append(make("span", { className: "name" }, label), make("span", { className: "share" }, formatShare(probability)), track);
    return row;
  });
}

/** Show where the milliseconds went: one stacked bar, its legend, and a sentence. */
export function showTiming({ bar, legend, sentence }, { answer, cache, roundTripMs }) {
  const timing = answer.timing_ms;
  const stages = STAGES.filter((stage) => timing[stage] > 0);
  const other = Math.max(0, timing.total - stages.reduce((sum, stage) => sum + timing[stage], 0));
  const parts = [...stages.map((stage) => [stage, timing[stage]]), ["other", other]];
  bar.replaceChildren(
    ...parts.map(([stage, ms]) => {
      const part = make("div", { className: `part ${stage}` });
      part.style.flexGrow = ms;
      return part;
    }),
  );
  fill(legend, parts, ([stage, ms]) => {
    const row = make("div", { className: "row" });
    row.append(make("span", { className: `swatch ${stage}` }), make("span", { className: "name" }, stage),
      make("span", { className: "share" }, ms.toFixed(1)));
    return row;
  });
  const share = formatShare((timing.forward ?? 0) / timing.total);
  const way = Math.max(0, roundTripMs - timing.total);
  const pass = timing.forward ? `${share} of it in the forward pass` : "no forward pass";
  sentence.textContent = `${timing.total.toFixed(1)} ms in the service, ${pass}; ${way.toFixed(1)} ms on the way there and back. Cache: ${cache}.`;
}

/** The whole answer in words: a sentence for each task that it has. */
export function summarise({ segments, classes }, detections, scoreThreshold) {
  const name = (items, share) => items.map((item) => `${item.label} ${formatShare(item[share])}`).join(", ");
  const sentences = [];
  if (segments) sentences.push(`Segments: ${name(segments, "fraction")}.`);
  if (detections?.length) {
    const count = detections.length === 1 ? "1 box" : `${detections.length} boxes`;
    sentences.push(`${count}: ${name(detections.slice(0, 5), "score")}${detections.length > 5 ? " and more" : ""}.`);
  } else if (detections) {
    sentences.push(`No box scores ${formatShare(scoreThreshold)} or more.`);
  }
  if (classes) sentences.push(`Most probable class: ${name(classes.slice(0, 1), "probability")}.`);
  return sentences.join(" ");
}

function fill(list, items, build) {
  list.replaceChildren(
    ...items.map((item) => {
      const element = make("li");
      element.append(build(item));
      return element;
    }),
  );
}

function make(tag, properties = {}, text = "") {
  return Object.assign(document.createElement(tag), properties, text ? { textContent: text } : {});
}

/** Hide what is about parts that this answer does not have: a model may serve fewer than all tasks. */
export function showParts(answer, canvas) {
  for (const element of document.querySelectorAll("[data-part]")) {
    element.hidden = !element.dataset.part.split(" ").some((part) => part in answer);
  }
  const drawn = [["mask", "mask"], ["detections", "boxes"]].filter(([part]) => part in answer).map(([, word]) => word);
  canvas.ariaLabel = drawn.length ? `The picture with its ${drawn.join(" and ")}` : "The picture";
}
