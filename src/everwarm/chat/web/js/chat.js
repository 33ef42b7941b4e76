// The chat page: list, conversation, composer, and the keys that move between them.
import { html, render, signal, useEffect, useLayoutEffect, useRef, useState } from "./lib.js";
import { Icon } from "./lib.js";
import { Composer } from "./composer.js";
import { copyText } from "./code.js";
import { live } from "./live.js";
import { Action, Aside, LiveReply, Reply, Summary, UserMessage } from "./message.js";
import { Settings } from "./settings.js";
import { EngineNotice, Limits, Login, Offline, lookAtEngine, whenBack } from "./shell.js";
import { Sidebar } from "./sidebar.js";
import { needsKey } from "./api.js";
import * as store from "./store.js";

const edited = signal(null);
const given = signal("");

const IDEAS = [
  ["Explain", "Explain in five sentences how a transformer reads a prompt, and what a KV cache keeps."],
  ["Write", "Write a Python function that merges overlapping intervals, with three tests."],
  ["Compare", "Compare three ways to store time series in SQLite, as a table."],
];

function Empty() {
  const [said, say] = useState("");
  const base = `${location.origin}/v1`;
  return html`<div class="empty">
    <h1>Conversations that never go cold</h1>
    <p>everwarm keeps what the model has read. Each turn reads only what is new, also after a branch, an edit or a restart; the badge under a reply says how much that was.</p>
    <p class="sample" aria-label="An example of a badge"><span class="badge warm"><span class="dot"></span>99.8% warm · 212 new of 101,334 · 0.5 s</span></p>
    <div class="ideas">${IDEAS.map(([name, text]) => html`<button type="button" key=${name} onClick=${() => { given.value = text; }}><strong>${name}</strong><span>${text}</span></button>`)}</div>
    <${Limits} model=${store.model.value} />
    <dl class="keys">
      <div><dt><kbd>Enter</kbd></dt><dd>send</dd></div><div><dt><kbd>Shift</kbd> <kbd>Enter</kbd></dt><dd>new line</dd></div>
      <div><dt><kbd>Esc</kbd></dt><dd>stop</dd></div><div><dt><kbd>Up</kbd></dt><dd>edit your last message</dd></div><div><dt><kbd>/</kbd></dt><dd>search</dd></div>
    </dl>
    <p class="quiet">Coding agents talk to <code>${base}</code> <button type="button" class="link"
      onClick=${async () => { say((await copyText(base)) ? "Copied" : "Not copied"); setTimeout(() => say(""), 1500); }}>${said || "Copy"}</button></p>
  </div>`;
}

const keyOf = (message) => message.turn?.id ?? message.id;

function Path() {
  const all = store.messages.value;
  const now = live.value;
  const last = all.at(-1);
  const isUnanswered = last?.role === "user" && !now && last.id !== "soon";
  return html`
    ${all.map((m, i) => m.role === "user"
      ? html`<${UserMessage} key=${keyOf(m)} message=${m} isEdited=${edited.value === m.id} edit=${(id) => { edited.value = id; }} />`
      : m.role === "summary" ? html`<${Summary} key=${m.id} message=${m} />`
      : m.role !== "assistant" ? html`<${Aside} key=${m.id} message=${m} />`
      : html`<${Reply} key=${keyOf(m)} message=${m} isLast=${i === all.length - 1} />`)}
    ${now && html`<${LiveReply} key="live" now=${now} />`}
    ${isUnanswered && html`<p class="unanswered"><span class="quiet">This message has no reply.</span> <button type="button" onClick=${store.answer}>Answer it</button></p>`}`;
}

/** Keeps the end in view while it grows, unless the person scrolled away. */
function useFollow(id) {
  const box = useRef(null);
  const isAtEnd = useRef(true);
  const [isAway, setAway] = useState(false);
  const toEnd = () => { box.current.scrollTop = box.current.scrollHeight; };
  useLayoutEffect(() => {
    isAtEnd.current = true;
    setAway(false);
    toEnd();
  }, [id]);
  useEffect(() => {
    const watch = new ResizeObserver(() => isAtEnd.current && toEnd());
    watch.observe(box.current.firstElementChild);
    return () => watch.disconnect();
  }, []);
  const onScroll = () => {
    const { scrollTop, scrollHeight, clientHeight } = box.current;
    isAtEnd.current = scrollHeight - scrollTop - clientHeight < 60;
    setAway(!isAtEnd.current);
  };
  return { box, onScroll, isAway, toEnd };
}

function Conversation() {
  const session = store.current.value;
  const { box, onScroll, isAway, toEnd } = useFollow(session?.id);
  const isEmpty = !store.messages.value.length && !live.value && !store.isOpening.value;
  return html`<div class="scroll" ref=${box} onScroll=${onScroll} tabindex="0" role="region" aria-label="Conversation">
      <div class="column">${isEmpty ? html`<${Empty} />` : html`<${Path} />`}</div>
    </div>
    ${isAway && html`<button type="button" class="round to-end" aria-label="To the end" onClick=${toEnd}><${Icon} name="down" /></button>`}`;
}

function Fault() {
  const fault = store.fault.value;
  return html`<div class="fault-place" role="alert">${fault && html`<div class="fault">
    <p><strong>${fault.text}</strong> ${fault.hint}</p>
    <${Action} icon="close" name="Dismiss" onClick=${() => { store.fault.value = null; }} /></div>`}</div>`;
}

/** Tells screen readers what happens: sentence by sentence would be too much, so by state. */
function Announcer() {
  const now = live.value;
  const before = useRef(null);
  const said = useRef("");
  if (now && !before.current) said.current = "Reply begins.";
  if (!now && before.current) said.current = `Reply: ${store.messages.value.at(-1)?.text.slice(0, 500) ?? ""}`;
  before.current = now;
  return html`<div class="visually-hidden" aria-live="polite">${said.current}</div>`;
}

function editLast() {
  const last = store.messages.value.findLast((m) => m.role === "user");
  if (last) edited.value = last.id;
}

function onKey(e) {
  const isTyping = e.target.closest?.("input, textarea, select, [contenteditable]");
  if (e.key === "Escape" && live.value && !document.querySelector("dialog[open]")) store.stop();
  else if (e.key === "/" && !isTyping && !e.ctrlKey && !e.metaKey) {
    e.preventDefault();
    showList.value = matchMedia("(max-width: 760px)").matches;
    const focus = () => document.getElementById("search")?.focus();
    if (showList.value) setTimeout(focus); // once the list is there
    else focus(); // at once: the next letters are already coming
  }
}

const showList = signal(false);
const showSettings = signal(false);

function Chat() {
  useEffect(() => {
    document.addEventListener("keydown", onKey);
    return () => document.removeEventListener("keydown", onKey);
  }, []);
  const session = store.current.value;
  const branches = session?.branches ?? [];
  useEffect(() => { document.title = session?.title ? `${session.title} · everwarm` : "everwarm"; }, [session?.title]);
  return html`
    <${Sidebar} isShown=${showList.value} hide=${() => { showList.value = false; }} />
    ${showList.value && html`<div class="shade" onClick=${() => { showList.value = false; }}></div>`}
    <main>
      <header class="top">
        <button type="button" class="icon-button only-narrow" aria-label="Conversations" aria-expanded=${showList.value} aria-controls="sidebar" onClick=${() => { showList.value = true; }}><${Icon} name="menu" /></button>
        <h1 class="title" dir="auto">${session ? session.title || "New chat" : "New chat"}</h1>
        ${branches.length > 1 && html`<select class="branches" aria-label="Branch" value=${session.branch} disabled=${store.busy.value} onChange=${(e) => store.switchBranch(e.target.value)}>
          ${branches.map((b) => html`<option key=${b.name} value=${b.name}>${b.name}</option>`)}</select>`}
        <span class="grow"></span>
        <${Action} icon="sliders" name="Model and settings" onClick=${() => { showSettings.value = true; }} />
      </header>
      <${Offline} />
      <${EngineNotice} />
      <${Conversation} />
      <div class="bottom"><div class="column"><${Fault} /><${Composer} editLast=${editLast} given=${given} /></div></div>
    </main>
    <${Announcer} />
    ${showSettings.value && html`<${Settings} close=${() => { showSettings.value = false; }} />`}
    <${Login} onKey=${begin} />`;
}

function go() {
  const id = decodeURIComponent(location.hash.slice(1));
  edited.value = null;
  if (id && id !== store.current.value?.id) store.open(id);
  else if (!id) store.newChat();
}

async function begin() {
  await store.readModel();
  if (needsKey.value) return;
  store.refreshList();
  go();
}

addEventListener("hashchange", go);
document.addEventListener("visibilitychange", () => {
  if (document.hidden || needsKey.value) return;
  store.refreshList();
  store.reload();
});
whenBack(() => {
  store.readModel();
  store.refreshList();
  store.reload();
});
render(html`<${Chat} />`, document.getElementById("app"));
begin();
lookAtEngine();
