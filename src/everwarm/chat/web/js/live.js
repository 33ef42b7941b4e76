// The turn that is being written: one at a time, of the open session.
//
// The server goes on without us, and replays a turn from its beginning. So a lost connection is
// joined again; the same text comes again, and what stands on the page stays as it is.
import { signal } from "./lib.js";
import { ApiError, events, isOffline } from "./api.js";

const RETRY_S = [0.3, 1, 2, 4, 5];

/**
 * null, or {session, turn, sumsUp, text, reasoning, calls, progress, state, since}; state is one of
 * "waiting", "reading", "thinking", "writing", "reconnecting".
 */
export const live = signal(null);

let abort = null;

export function stopFollowing() {
  abort?.abort();
  abort = null;
  live.value = null;
}

const fresh = (session) => ({
  session, turn: "", sumsUp: false, text: "", reasoning: "", calls: [], progress: null, state: "waiting", since: performance.now(),
});

/**
 * Begin or join a turn and follow it to its end. Throws ApiError where the server refuses it;
 * what happens later goes to `on`: started, finished, failed, lost (over while we were away).
 */
export async function follow(session, method, path, body, on) {
  stopFollowing();
  const mine = (abort = new AbortController());
  const painter = new Painter(fresh(session), mine.signal);
  try {
    const fate = await listen(painter, method, path, body, on, mine.signal);
    if (!fate) await rejoin(painter, session, on, mine.signal);
  } finally {
    if (abort === mine) {
      abort = null;
      live.value = null;
    }
  }
}

/** True when the turn is over, false when the connection was lost on the way. */
async function listen(painter, method, path, body, on, signal) {
  let begun = false;
  try {
    for await (const [name, data] of events(method, path, body, signal)) {
      begun = true;
      if (signal.aborted) return true;
      if (name === "done") {
        painter.end();
        on.finished(data);
        return true;
      }
      if (name === "error") {
        painter.end();
        on.failed(new ApiError(data.error?.message ?? "The turn failed.", -1, data.error?.code));
        setTimeout(on.lost); // once nothing is followed any more: the page is busy until then
        return true;
      }
      if (name === "start") on.started(data);
      painter.take(name, data);
    }
  } catch (e) {
    if (signal.aborted) return true;
    if (!begun && !(e instanceof ApiError && e.status === 0 && painter.hasBegun)) throw e;
  }
  return signal.aborted;
}

async function rejoin(painter, session, on, signal) {
  const path = `/api/sessions/${encodeURIComponent(session)}/stream`;
  for (let n = 0; !signal.aborted; n++) {
    painter.change({ state: "reconnecting" });
    await new Promise((resolve) => setTimeout(resolve, 1000 * RETRY_S[Math.min(n, RETRY_S.length - 1)]));
    if (signal.aborted) return;
    try {
      painter.restart();
      if (await listen(painter, "GET", path, undefined, on, signal)) return;
    } catch (e) {
      if (e.status === 404) {
        painter.end();
        return void setTimeout(on.lost);
      }
      if (e.status !== 0 && !isOffline.value) throw e;
    }
  }
}

/** Collects what arrives, and shows it once per frame. */
class Painter {
  constructor(now, signal) {
    this.now = now;
    this.signal = signal;
    this.planned = false;
    this.hasBegun = false;
    live.value = now;
  }

  change(what) {
    this.now = { ...this.now, ...what };
    if (this.planned) return;
    this.planned = true;
    const paint = () => {
      this.planned = false;
      if (!this.signal.aborted && live.value) live.value = this.now;
    };
    if (document.hidden) setTimeout(paint, 200);
    else requestAnimationFrame(paint);
  }

  /** What comes is sent from the beginning again; the page keeps what it shows until it does. */
  restart() {
    this.now = { ...fresh(this.now.session), turn: this.now.turn, sumsUp: this.now.sumsUp, since: this.now.since, state: "reconnecting" };
  }

  take(name, data) {
    this.hasBegun = true;
    const { text, reasoning } = this.now;
    if (name === "start") this.change({ turn: data.turn, sumsUp: data.sums_up });
    else if (name === "progress") this.change({ progress: data, state: "reading" });
    else if (name === "reasoning") this.change({ reasoning: reasoning + data.text, state: "thinking" });
    else if (name === "text") this.change({ text: text + data.text, state: "writing" });
    else if (name === "tool_call") this.change({ calls: called(this.now.calls, data), state: "writing" });
  }

  end() {
    live.value = this.now;
  }
}

function called(calls, { index, id, name, arguments: more }) {
  const next = [...calls];
  const call = next[index] ?? { id, name, arguments: "" };
  next[index] = { id: id ?? call.id, name: name ?? call.name, arguments: call.arguments + (more ?? "") };
  return next;
}
