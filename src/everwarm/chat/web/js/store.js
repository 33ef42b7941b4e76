// What the chat page knows, as signals, and what a person can do. Views read it and call it.
import { batch, computed, signal } from "./lib.js";
import { ApiError, call, hint, isOffline } from "./api.js";
import { follow, live, stopFollowing } from "./live.js";
import { lookAtEngine } from "./shell.js";

const PAGE = 50;

export const sessions = signal([]);
export const hasMore = signal(false);
export const query = signal("");
/** The open session with its messages on the present branch, or null: a new chat. */
export const current = signal(null);
export const messages = signal([]);
export const isOpening = signal(false);
/** A fault to show: {text, hint}, or null. */
export const fault = signal(null);
export const model = signal(null);
/** Settings of a chat that is not begun. */
export const draftSettings = signal({});
/** What `prepare` said of the open session: "", "reading", "ready", "busy" or "too_long". */
export const prepared = signal("");

export const busy = computed(() => live.value !== null);

export function show(error) {
  if (error?.name === "AbortError" || error?.status === 401) return; // the form for a key says it
  const known = error instanceof ApiError;
  if (!known) console.error(error);
  fault.value = { text: known ? error.message : "The page met a fault of its own.", hint: known ? hint(error) : "Reload the page." };
}

/** Run what the page does by itself; a fault is shown, and the result is then undefined. */
async function quietly(action) {
  try {
    return await action();
  } catch (e) {
    show(e);
  }
}

/** Run what a person asked for: the last fault is seen to. */
function attempt(action) {
  fault.value = null;
  return quietly(action);
}

const at = (id, ...rest) => ["/api/sessions", encodeURIComponent(id), ...rest].join("/");

// --- the list ---

let listed = 0;

/** Read the list anew, as far as it was read. */
export async function refreshList() {
  const mine = ++listed;
  const limit = Math.min(500, Math.max(PAGE, sessions.value.length));
  const found = await quietly(() => call("GET", `/api/sessions?limit=${limit}&q=${encodeURIComponent(query.value)}`));
  if (!found || mine !== listed) return;
  batch(() => {
    sessions.value = found.sessions;
    hasMore.value = found.more;
  });
}

export async function readMore() {
  const last = sessions.value.at(-1);
  const found = await attempt(() => call("GET", `/api/sessions?limit=${PAGE}&before=${last.updated}`));
  if (!found) return;
  const seen = new Set(sessions.value.map((s) => s.id));
  sessions.value = [...sessions.value, ...found.sessions.filter((s) => !seen.has(s.id))];
  hasMore.value = found.more;
}

let searching = 0;

export function search(text) {
  query.value = text;
  clearTimeout(searching);
  searching = setTimeout(refreshList, 150);
}

// --- the open session ---

function take(session) {
  batch(() => {
    const { messages: path, ...rest } = session;
    current.value = rest;
    if (path) messages.value = path;
    sessions.value = sessions.value.map((s) => (s.id === rest.id ? { ...s, ...rest } : s));
  });
}

export function newChat() {
  stopFollowing();
  batch(() => {
    current.value = null;
    messages.value = [];
    prepared.value = "";
    fault.value = null;
    draftSettings.value = {};
  });
}

/** Open a session; a turn that is being written goes on before one's eyes. */
export async function open(id) {
  stopFollowing();
  isOpening.value = current.value?.id !== id;
  prepared.value = "";
  const session = await attempt(() => call("GET", at(id)));
  isOpening.value = false;
  if (!session) {
    if (isOffline.value) return;
    const said = fault.value;
    history.replaceState(null, "", location.pathname);
    newChat();
    fault.value = said;
    return;
  }
  take(session);
  if (session.running) join(id);
  else if (session.messages.length) prepare();
}

/** Read the open session anew, as after a connection was lost. */
export async function reload() {
  const id = current.value?.id;
  if (!id || busy.value) return;
  const session = await quietly(() => call("GET", at(id)));
  if (!session || current.value?.id !== id || busy.value) return;
  take(session);
  if (session.running) join(id);
}

// --- turns ---

const handlers = (id) => ({
  started({ session, user }) {
    if (current.value?.id !== id) return;
    take(session);
    if (user) cut(user.parent, user);
  },
  finished({ message, session }) {
    if (current.value?.id !== id) return;
    take(session);
    if (message) cut(message.parent, message);
    if (session.running) join(id).catch(show); // it was full: now it is summed up
    refreshList();
  },
  failed(error) {
    show(error);
    lookAtEngine();
    refreshList();
  },
  lost: () => reload(),
});

/** Show `message` right behind `parent`: what stood there belongs to another branch. */
function cut(parent, message) {
  const path = messages.value;
  const end = parent === null ? 0 : path.findIndex((m) => m.id === parent) + 1;
  if (parent !== null && end === 0) return void catchUp();
  messages.value = [...path.slice(0, end), message];
}

/** Read the messages anew beside the turn that runs: another tab has said more. */
async function catchUp() {
  const id = current.value.id;
  const session = await quietly(() => call("GET", at(id)));
  if (session && current.value?.id === id) take(session);
}

/** Follow the turn that runs. One that was over before we came left its words in the session. */
async function join(id) {
  try {
    await follow(id, "GET", at(id, "stream"), undefined, handlers(id));
  } catch (e) {
    if (e.status !== 404) throw e;
    await reload();
  }
}

async function turn(path, body) {
  const id = current.value.id;
  fault.value = null;
  try {
    await follow(id, "POST", at(id, path), body, handlers(id));
  } catch (e) {
    show(e);
    if (e.status === 409) await reload();
    throw e;
  }
}

/** Send a message; begins a session where none is open. Rejects where the server refused it. */
export async function send(text) {
  if (!current.value) {
    const session = await attempt(() => call("POST", "/api/sessions", { settings: draftSettings.value }));
    if (!session) throw new Error("refused");
    batch(() => {
      current.value = session;
      messages.value = [];
      sessions.value = [session, ...sessions.value];
    });
    history.replaceState(null, "", `#${session.id}`);
  }
  showSoon(text, messages.value.at(-1)?.id ?? null);
  try {
    await turn("send", { text });
  } catch (e) {
    messages.value = messages.value.filter((m) => m.id !== "soon");
    throw e;
  }
}

/** The person's own words stand on the page at once; `start` brings the message itself. */
function showSoon(text, parent, keep = messages.value.length) {
  const soon = { id: "soon", parent, role: "user", text, reasoning: "", tool_calls: [], siblings: ["soon"], turn: null };
  messages.value = [...messages.value.slice(0, keep), soon];
}

export async function edit(message, text) {
  const before = messages.value;
  showSoon(text, message.parent, before.indexOf(message));
  await turn("edit", { message: message.id, text }).catch(() => { messages.value = before; });
}

export async function regenerate(message) {
  const before = messages.value;
  messages.value = before.slice(0, before.indexOf(message));
  await turn("regenerate", { message: message.id }).catch(() => { messages.value = before; });
}

/** A reply that was cut is written on, from its last word. */
export async function goOn(message) {
  const before = messages.value;
  messages.value = before.slice(0, before.indexOf(message));
  await turn("continue", { message: message.id }).catch(() => { messages.value = before; });
}

/** A user's message that has no reply gets one. */
export const answer = () => turn("regenerate", {}).catch(() => {});

export async function stop() {
  const id = current.value?.id;
  if (id) await attempt(() => call("POST", at(id, "stop"), {}));
}

// --- places in the tree ---

async function moved(action) {
  const session = await attempt(action);
  if (session && session.id === current.value?.id) take(session);
  return session;
}

export const select = (id) => moved(() => call("POST", at(current.value.id, "select"), { message: id }));
export const branchAt = (id) => moved(() => call("POST", at(current.value.id, "branches"), { at: id }));
export const undo = () => moved(() => call("POST", at(current.value.id, "undo"), {}));
/** The messages that a summary stands for. */
export async function coveredBy(summary) {
  const { id, branches } = current.value;
  for (const b of branches) {
    const found = await attempt(() => call("GET", `${at(id)}?branch=${encodeURIComponent(b.name)}`));
    const end = found?.messages.findIndex((m) => m.id === summary.covers) ?? -1;
    if (end >= 0) return found.messages.slice(0, end + 1);
  }
  return [];
}

export const uncompact = () => moved(() => call("POST", at(current.value.id, "uncompact"), {}));
export const compact = () => turn("compact", {}).then(reload).catch(() => {});
export const switchBranch = async (name) => {
  await moved(() => call("PATCH", at(current.value.id), { branch: name }));
  await reload();
};

// --- what a session is called, and its end ---

export async function change(id, what) {
  const session = await attempt(() => call("PATCH", at(id), what));
  if (session && id === current.value?.id) {
    const { messages: _, ...rest } = session;
    current.value = rest;
  }
  await refreshList();
  return session;
}

export async function remove(id) {
  const gone = await attempt(() => call("DELETE", at(id)));
  if (!gone) return;
  if (current.value?.id === id) location.hash = "";
  await refreshList();
}

export async function importFile(file) {
  const session = await attempt(async () => call("POST", "/api/sessions/import", await file.text()));
  if (!session) return;
  await refreshList();
  location.hash = session.id;
}

export const exportPath = (id, format) => `${at(id, "export")}?format=${format}`;

// --- ahead of time ---

let preparedAt = 0;

/** Have the open session's past restored or read before Enter is pressed. At most every 20 s. */
export async function prepare() {
  const id = current.value?.id;
  if (!id || busy.value || !messages.value.length || Date.now() - preparedAt < 20_000) return;
  preparedAt = Date.now();
  for (let n = 0; n < 20 && current.value?.id === id && !busy.value; n++) {
    try {
      const { state } = await call("POST", at(id, "prepare"), {});
      if (current.value?.id === id) prepared.value = state;
      if (state !== "reading") return;
    } catch {
      prepared.value = ""; // it only saves time: the turn itself says what is wrong
      return;
    }
    await new Promise((resolve) => setTimeout(resolve, 1500));
  }
}

export async function readModel() {
  const found = await quietly(() => call("GET", "/v1/models"));
  model.value = found?.data?.[0] ?? null;
}
