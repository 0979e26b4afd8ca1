// One question to the service, and its refusals in words.

// Boxes that score less are not asked for; the page's threshold slider begins here.
export const LOWEST_SCORE = 0.05;
const KEY = "unihead-key";

const WORDS = {
  401: "This service asks for a key.",
  413: "The picture is too large.",
  415: "This is not a picture that the service takes.",
  422: "The service cannot use this picture.",
  503: "The service cannot take the picture now.",
};

/** Why there is no answer: `message` is for people, the rest for the page. */
export class Refusal extends Error {
  constructor(message, { status = 0, retryAfterS = 0 } = {}) {
    super(message);
    this.status = status; // 0 where no answer came
    this.retryAfterS = retryAfterS;
  }
}

export const readKey = () => sessionStorage.getItem(KEY) ?? "";

/** Keep a key until the tab is closed; an empty one forgets it. */
export function keepKey(key) {
  if (key) sessionStorage.setItem(KEY, key);
  else sessionStorage.removeItem(KEY);
}

/** The address that pictures are sent to, right behind a proxy's path prefix too. */
export const predictUrl = (scoreThreshold) => new URL(`predict?score_threshold=${scoreThreshold}`, document.baseURI).href;

/**
 * Ask about a picture.
 * @param {Blob} picture its bytes as they are
 * @param {AbortSignal} signal given up when it fires, with an AbortError
 * @returns {Promise<{answer: object, cache: string, roundTripMs: number}>}
 * @throws {Refusal}
 */
export async function predict(picture, signal) {
  const headers = { "Content-Type": picture.type || "application/octet-stream" };
  if (readKey()) headers.Authorization = `Bearer ${readKey()}`;
  const started = performance.now();
  let response, text;
  try {
    response = await fetch(predictUrl(LOWEST_SCORE), { method: "POST", body: picture, headers, signal });
    text = await response.text();
  } catch (error) {
    if (signal.aborted) throw error;
    throw new Refusal("The service cannot be reached: it may be down, or the network may be.");
  }
  const roundTripMs = performance.now() - started;
  const said = parse(text);
  if (!response.ok) throw refuse(response, said);
  if (!said) throw new Refusal("What came back is not an answer of this service.", { status: response.status });
  return { answer: said, cache: response.headers.get("X-Unihead-Cache") ?? "", roundTripMs };
}

function refuse(response, problem) {
  const retryAfterS = Number(response.headers.get("Retry-After")) || 0;
  const again = retryAfterS ? `Try again in ${retryAfterS} s.` : "";
  const detail = problem?.detail ? sentence(problem.detail) : `The service answered ${response.status}.`;
  const words = [WORDS[response.status], detail, again].filter(Boolean).join(" ");
  return new Refusal(words, { status: response.status, retryAfterS });
}

const sentence = (text) => text[0].toUpperCase() + text.slice(1) + (/[.!?]$/.test(text) ? "" : ".");

function parse(text) {
  try {
    return JSON.parse(text);
  } catch {
    return null; // a proxy's page
  }
}
