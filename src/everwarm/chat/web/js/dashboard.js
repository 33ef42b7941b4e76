// The dashboard: what is loaded, what runs, what the cache holds, what it cost and saved.
// It asks every 2 s, and only while somebody can see it; for the tree, which costs the engine most,
// only where something in it has changed.
import { batch, html, render, signal, useEffect, useState } from "./lib.js";
import { ApiError, call, hint, needsKey } from "./api.js";
import { Histogram, Meter } from "./charts.js";
import { bytes, count, percent, plural, seconds, when } from "./format.js";
import { Progress } from "./progress.js";
import { EngineNotice, Limits, Login, Offline, ThemeButton, lookAtEngine, whenBack } from "./shell.js";
import { Tree } from "./tree.js";
import { Missed } from "./turn.js";

const EVERY_MS = 2000;
const TREE_AT_LEAST_MS = 30_000; // a pin of another tab changes no number

const board = signal(null);
const nodes = signal([]);
const titles = signal(new Map());
const fault = signal(null);
let timer = 0;

function show(error) {
  const known = error instanceof ApiError;
  if (!known) console.error(error);
  fault.value = known ? `${error.message} ${hint(error)}` : "The page met a fault of its own. Reload the page.";
}

// With each token of a reply.
const GROWING = new Set(["memory_bytes", "memory_cached_bytes", "cache_bytes", "cache_promised_bytes", "cache_in_flight_bytes", "written_today_bytes"]);

/** What tells one tree from another: its counts, whose turns run, how many have ended. */
function mark({ memory, disk, running, totals }) {
  const counts = [memory, disk].flatMap(Object.entries).filter(([name]) => !GROWING.has(name));
  return JSON.stringify([counts, running.map((t) => t.id), totals.turns]);
}

let drawn = { mark: "", at: 0 };

async function readTree(now) {
  const [tree, listed] = await Promise.all([call("GET", "/api/cache/tree"), call("GET", "/api/sessions?limit=64")]);
  drawn = { mark: now, at: Date.now() };
  return { nodes: tree.nodes, titles: new Map(listed.sessions.map((s) => [s.id, s.title])) };
}

async function look() {
  clearTimeout(timer);
  if (document.hidden || needsKey.value) return;
  try {
    const snapshot = await call("GET", "/api/dashboard");
    const now = mark(snapshot);
    const isOld = now !== drawn.mark || Date.now() - drawn.at > TREE_AT_LEAST_MS;
    const tree = isOld ? await readTree(now) : null;
    batch(() => {
      board.value = snapshot;
      if (snapshot.engine.state !== "ready") lookAtEngine();
      if (tree) [nodes.value, titles.value] = [tree.nodes, tree.titles];
    });
  } catch (e) {
    if (e.status !== 0) show(e);
  }
  timer = setTimeout(look, EVERY_MS);
}

async function act(path, body) {
  try {
    fault.value = null;
    await call("POST", path, body);
  } catch (e) {
    show(e);
  }
  drawn.mark = "";
  look();
}

function Card({ title, children, wide }) {
  return html`<section class="card ${wide ? "wide" : ""}" aria-label=${title}><h2>${title}</h2>${children}</section>`;
}

function Figures({ totals }) {
  const figures = [
    [totals.hit_rate === null ? "–" : percent(totals.hit_rate), "of prompt tokens were warm"],
    [count(totals.tokens_saved), "tokens not read again"],
    [seconds(totals.seconds_saved), "of reading saved, at this machine's measured rate"],
    [ratio(totals.reprocess_ratio), "tokens read per new token; 1 is the least"],
    [ratio(totals.cache_ratio), "tokens read per token never seen; 1 is the least"],
    [count(totals.again), "tokens read again, beyond what was new"],
    [count(totals.turns), "turns since the start"],
  ];
  return html`<div class="figures">${figures.map(([n, what]) => html`<div key=${what}><strong class="num">${n}</strong><span>${what}</span></div>`)}</div>`;
}

const ratio = (r) => (r === null || r === undefined ? "–" : r.toFixed(2));

function ModelCard({ model, machine, memory }) {
  return html`<dl class="facts">
      <div><dt>Model</dt><dd>${model.id}</dd></div>
      <div><dt>Context</dt><dd>${count(model.context_length ?? model.max_model_len)} tokens</dd></div>
      <div><dt>Machine</dt><dd>${machine.system} ${machine.machine}, ${plural(machine.cpus, "core")}, ${bytes(machine.memory_bytes)}</dd></div>
      <div><dt>Version</dt><dd>${machine.version}</dd></div>
    </dl>
    <${Limits} model=${model} />
    ${memory.cache_bytes !== undefined && html`<${Held} machine=${machine} memory=${memory} />`}`;
}

function Held({ machine, memory }) {
  return html`<${Meter} name="Model and cache in memory" used=${memory.memory_bytes} limit=${machine.memory_bytes} show=${bytes} />
    <${Meter} name="Conversations in memory" used=${memory.cache_bytes} limit=${memory.cache_budget_bytes} show=${bytes} />
    <p class="quiet">${bytes(memory.cache_promised_bytes)} promised to running replies, ${bytes(memory.cache_in_flight_bytes)} on the way to or from disk</p>
    <p class="quiet">${plural(memory.states, "live state")}, ${plural(memory.segments, "segment")}, ${plural(memory.checkpoints, "checkpoint")}, ${plural(memory.tree_tokens, "token")} known</p>`;
}

function DiskCard({ disk }) {
  if (!disk.state) return html`<p class="quiet">Conversations are kept in memory only (--no-disk).</p>`;
  return html`<p>${{ ok: "Working" }[disk.state] ?? disk.state}${disk.why ? `: ${disk.why}` : ""}</p>
    <${Meter} name="On disk" used=${disk.bytes} limit=${disk.budget_bytes} show=${bytes} />
    <${Meter} name="Written today" used=${disk.written_today_bytes} limit=${disk.write_budget_bytes} show=${bytes} />
    <p class="quiet">${plural(disk.pieces, "piece")}</p>`;
}

const STATES = { loading: "It is being loaded", ready: "Working", restarting: "It is being started again", missing: "It cannot be started", ended: "It has ended" };

/** The engine's process: its state, how often it was started again, what the latest one said before it died. */
function EngineCard({ engine }) {
  return html`<p>${STATES[engine.state] ?? engine.state}${engine.why ? `: ${engine.why}` : ""}</p>
    <p class="quiet">${engine.restarts ? `Started again ${plural(engine.restarts, "time")}.` : "It has not ended since the server was started."}</p>
    ${engine.lowered_why && html`<p>${engine.lowered_why}</p>`}
    ${engine.last_words && html`<details><summary>Its last words</summary><pre class="words">${engine.last_words}</pre></details>`}`;
}

function Running({ running }) {
  if (!running.length) return html`<p class="quiet">No turn runs now.</p>`;
  return html`<ul class="plain running">${running.map((t) => html`<li key=${t.id}>
    <div class="row"><code>${t.id}</code><span class="grow"></span><span class="num">${t.completion ? `${plural(t.completion, "token")} written` : ""}</span>
      <button type="button" disabled=${t.is_cancelled} onClick=${() => act(`/api/turns/${encodeURIComponent(t.id)}/cancel`, {})}>${t.is_cancelled ? "Stopping" : "Cancel"}</button></div>
    ${(t.waits || !t.completion) && html`<${Progress} progress=${{ done: t.done, total: t.total, seconds_left: null, waits: t.waits }} />`}
  </li>`)}</ul>`;
}

function Misses({ misses }) {
  if (!misses.length) return html`<p class="quiet">Nothing that was read once had to be read again.</p>`;
  return html`<ul class="plain misses">${misses.map((m) => html`<li key=${m.turn}><details>
    <summary>${m.at ? when(m.at) : ""} ${m.miss.cause}</summary><${Missed} miss=${m.miss} /><p class="quiet mono">${m.turn}</p></details></li>`)}</ul>`;
}

function Logs({ logs }) {
  const [text, filter] = useState("");
  const [level, choose] = useState("");
  const found = logs.filter((l) => (!level || l.level === level) && l.text.toLowerCase().includes(text.toLowerCase()));
  return html`<div class="row"><input type="search" class="narrow" placeholder="Filter" aria-label="Filter the log" value=${text} onInput=${(e) => filter(e.target.value)} />
      <select class="narrow" aria-label="Level" value=${level} onChange=${(e) => choose(e.target.value)}><option value="">all levels</option>
        ${["debug", "info", "warning", "error"].map((l) => html`<option key=${l} value=${l}>${l}</option>`)}</select><span class="grow"></span><span class="quiet num">${count(found.length)} of ${count(logs.length)}</span></div>
    <div class="logs" tabindex="0" role="log" aria-live="off" aria-label="Log">${[...found].reverse().map((l, i) => html`<div key=${i} class="line ${l.level}"><span class="num">${new Date(l.at * 1000).toLocaleTimeString()}</span> <b>${l.level}</b> ${l.text}</div>`)}
      ${!found.length && html`<span class="quiet">No line.</span>`}</div>`;
}

function Dashboard() {
  const now = board.value;
  return html`<header class="bar"><a class="brand" href="/"><img src="/web/icon.svg" alt="" width="22" height="22" />everwarm</a><span class="quiet">Dashboard</span>
      <span class="grow"></span><a class="button" href="/">Chat</a><${ThemeButton} /></header>
    <${Offline} />
    <${EngineNotice} />
    <main class="board">
      <h1 class="visually-hidden">Dashboard</h1>
      <div class="wide" role="alert">${fault.value && html`<div class="fault"><p>${fault.value}</p></div>`}</div>
      ${now && html`
        <${Card} title="What it saved" wide=${true}><${Figures} totals=${now.totals} /><//>
        <${Card} title="Turns that run" wide=${true}><${Running} running=${now.running} /><//>
        <${Card} title="The cache, as a tree" wide=${true}><${Tree} nodes=${nodes.value} titles=${titles.value} act=${(what, body) => act(`/api/cache/${what}`, body)} /><//>
        <${Card} title="Model and memory"><${ModelCard} ...${now} /><//>
        <${Card} title="Engine"><${EngineCard} engine=${now.engine} /><//>
        ${now.engine.state === "ready" && html`<${Card} title="Disk"><${DiskCard} disk=${now.disk} /><//>`}
        <${Card} title="Time to the first token"><${Histogram} buckets=${now.ttft.buckets} /><//>
        <${Card} title="Last misses"><${Misses} misses=${now.misses} /><//>
        <${Card} title="Log" wide=${true}><${Logs} logs=${now.logs} /><//>`}
    </main>
    <${Login} onKey=${look} />`;
}

document.addEventListener("visibilitychange", look);
whenBack(look);
render(html`<${Dashboard} />`, document.getElementById("app"));
look();
