// Talk to the server: JSON calls and server-sent events, with errors that say what to do.
import { signal } from "./lib.js";

const STORED = "everwarm.key";

/** True while the server wants a key that this page does not have. */
export const needsKey = signal(false);
/** True while the server cannot be reached. */
export const isOffline = signal(false);

let key = read();

function read() {
  try {
    return sessionStorage.getItem(STORED) ?? localStorage.getItem(STORED);
  } catch {
    return null;
  }
}

/** Use this key from now on; `keep` remembers it in this browser, else only in this tab. */
export function setKey(value, keep) {
  key = value.trim();
  try {
    sessionStorage.setItem(STORED, key);
    if (keep) localStorage.setItem(STORED, key);
  } catch {
    // storage may be refused: then the key is good until the page is left
  }
  needsKey.value = false;
}

/** What went wrong, in words for a person. `status` 0: the server cannot be reached. */
export class ApiError extends Error {
  constructor(message, status = 0, code = null, param = null) {
    super(message);
    Object.assign(this, { status, code, param });
  }
}

const HINTS = {
  0: "Is everwarm still running? This page tries again by itself.",
  401: "Give the key that the server printed, or that EVERWARM_API_KEY holds.",
  404: "It may have been deleted in another tab.",
  409: "Wait for the reply that is being written, or stop it.",
  413: "Send less at once.",
  429: "Too many turns are waiting. Try again in a moment.",
  503: "The server is starting or full. Try again in a moment.",
};

/** What a person can do about an error, or an empty text. */
export const hint = (error) => HINTS[error.status ?? -1] ?? "";

async function ask(method, path, body, more = {}) {
  const headers = { Accept: "application/json" };
  if (key) headers.Authorization = `Bearer ${key}`;
  if (body !== undefined) headers["Content-Type"] = "application/json";
  let answer;
  try {
    const text = body === undefined ? undefined : typeof body === "string" ? body : JSON.stringify(body);
    answer = await fetch(path, { method, headers, body: text, ...more });
  } catch (e) {
    if (e.name === "AbortError") throw e;
    isOffline.value = true;
    throw new ApiError("The server cannot be reached.");
  }
  isOffline.value = false;
  if (!answer.ok) throw await refusal(answer);
  return answer;
}

async function refusal(answer) {
  let error = {};
  try {
    error = (await answer.json()).error ?? {};
  } catch {
    // not JSON: the status says enough
  }
  if (answer.status === 401) needsKey.value = true;
  const said = typeof error.message === "string" ? error.message : `The server answered ${answer.status}.`;
  return new ApiError(said, answer.status, error.code ?? null, error.param ?? null);
}

/** A JSON call. Throws ApiError. */
export async function call(method, path, body, more) {
  return (await ask(method, path, body, more)).json();
}

/** A call whose answer is a file. */
export async function download(path) {
  return (await ask("GET", path)).blob();
}

/**
 * Server-sent events of one answer: yields [name, data]. Throws ApiError where it is refused or cut.
 * Half a frame at the end of a cut answer is not yielded.
 */
export async function* events(method, path, body, abort) {
  const answer = await ask(method, path, body, { signal: abort });
  const reader = answer.body.pipeThrough(new TextDecoderStream()).getReader();
  let rest = "";
  for (;;) {
    let piece;
    try {
      piece = await reader.read();
    } catch (e) {
      if (e.name === "AbortError") throw e;
      throw new ApiError("The connection was lost.");
    }
    if (piece.done) return;
    const frames = (rest + piece.value).split("\n\n");
    rest = frames.pop();
    for (const frame of frames) {
      const event = parse(frame);
      if (event) yield event;
    }
  }
}

function parse(frame) {
  let name = "message";
  const data = [];
  for (const line of frame.split("\n")) {
    if (line.startsWith("event: ")) name = line.slice(7);
    else if (line.startsWith("data: ")) data.push(line.slice(6));
  }
  return data.length ? [name, JSON.parse(data.join("\n"))] : null;
}
