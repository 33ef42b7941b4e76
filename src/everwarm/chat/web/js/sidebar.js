// The list of conversations: search, open, rename, pin, export, import, delete.
import { html, useEffect, useRef, useState } from "./lib.js";
import { Icon } from "./lib.js";
import { download } from "./api.js";
import { age, when } from "./format.js";
import { ThemeButton } from "./shell.js";
import { Dialog } from "./turn.js";
import * as store from "./store.js";

async function exportAs(session, format) {
  try {
    const blob = await download(store.exportPath(session.id, format));
    const link = document.createElement("a");
    link.href = URL.createObjectURL(blob);
    const name = (session.title || "conversation").replace(/[^\p{L}\p{N} _-]+/gu, "").trim().slice(0, 60);
    link.download = `${name || "conversation"}.${format === "json" ? "json" : "md"}`;
    link.click();
    setTimeout(() => URL.revokeObjectURL(link.href), 10_000);
  } catch (e) {
    store.show(e);
  }
}

function Menu({ session, close, rename, remove }) {
  const box = useRef(null);
  useEffect(() => {
    box.current.querySelector("button").focus();
    const away = (e) => !box.current?.contains(e.target) && close();
    document.addEventListener("pointerdown", away);
    return () => document.removeEventListener("pointerdown", away);
  }, []);
  const onKeyDown = (e) => {
    const all = [...box.current.querySelectorAll("button")];
    const i = all.indexOf(document.activeElement);
    if (e.key === "Escape") close();
    else if (e.key === "ArrowDown") all[(i + 1) % all.length].focus();
    else if (e.key === "ArrowUp") all[(i + all.length - 1) % all.length].focus();
    else return;
    e.preventDefault();
    e.stopPropagation();
  };
  const item = (name, action, kind = "") => html`<button type="button" role="menuitem" class=${kind} onClick=${() => { close(); action(); }}>${name}</button>`;
  return html`<div class="menu" role="menu" aria-label="Conversation" ref=${box} onKeyDown=${onKeyDown}>
    ${item("Rename", rename)}
    ${item(session.pinned ? "Unpin" : "Pin", () => store.change(session.id, { pinned: !session.pinned }))}
    ${item("Export as Markdown", () => exportAs(session, "markdown"))}
    ${item("Export as JSON", () => exportAs(session, "json"))}
    ${item("Delete", remove, "danger")}
  </div>`;
}

function Rename({ session, close }) {
  const [title, set] = useState(session.title);
  const submit = (e) => {
    e.preventDefault();
    close();
    if (title.trim()) store.change(session.id, { title: title.trim() });
  };
  return html`<form class="rename" onSubmit=${submit}>
    <input aria-label="Title" value=${title} maxlength="200" autofocus ref=${(el) => el && !el.dataset.seen && (el.dataset.seen = 1, el.select())}
      onInput=${(e) => set(e.target.value)} onBlur=${close}
      onKeyDown=${(e) => e.key === "Escape" && (e.stopPropagation(), close())} /></form>`;
}

function Entry({ session }) {
  const [mode, setMode] = useState("");
  const isOpen = store.current.value?.id === session.id;
  if (mode === "rename") return html`<li class="entry"><${Rename} session=${session} close=${() => setMode("")} /></li>`;
  const title = session.title || "New chat";
  return html`<li class="entry ${isOpen ? "open" : ""}">
    <a href="#${session.id}" aria-current=${isOpen ? "page" : undefined} title=${title}>
      <span class="title" dir="auto">${session.pinned && html`<${Icon} name="pin" />`}${title}</span>
      <span class="quiet num">${session.running ? html`<span class="pulse">writing</span>` : when(session.updated)}</span>
      ${session.snippet && html`<span class="snippet" dir="auto">${session.snippet}</span>`}
      ${session.origin === "api" && html`<span class="snippet">from ${session.client ?? "a client"}</span>`}
    </a>
    <button type="button" class="icon-button" aria-label="More for ${title}" aria-haspopup="menu" aria-expanded=${mode === "menu"}
      onClick=${() => setMode(mode === "menu" ? "" : "menu")}><${Icon} name="more" /></button>
    ${mode === "menu" && html`<${Menu} session=${session} close=${() => setMode("")} rename=${() => setMode("rename")} remove=${() => setMode("delete")} />`}
    ${mode === "delete" && html`<${Delete} session=${session} close=${() => setMode("")} />`}
  </li>`;
}

function Delete({ session, close }) {
  const yes = () => {
    close();
    store.remove(session.id);
  };
  return html`<${Dialog} title="Delete this conversation?" close=${close}>
    <p><strong dir="auto">${session.title || "New chat"}</strong></p>
    <p>All its branches, and what the cache holds of it alone, in memory and on disk. There is no way back; export it first if you may want it.</p>
    <div class="row"><span class="grow"></span><button type="button" onClick=${close}>Keep it</button>
      <button type="button" class="primary danger" onClick=${yes}>Delete for good</button></div>
  <//>`;
}

function groups(sessions) {
  const found = new Map();
  for (const s of sessions) {
    const name = store.query.value ? "Found" : s.pinned ? "Pinned" : age(s.updated);
    if (!found.has(name)) found.set(name, []);
    found.get(name).push(s);
  }
  const pinned = found.get("Pinned");
  found.delete("Pinned");
  return pinned ? [["Pinned", pinned], ...found] : [...found];
}

export function Sidebar({ isShown, hide }) {
  const file = useRef(null);
  const all = store.sessions.value;
  const take = (e) => {
    if (e.target.files[0]) store.importFile(e.target.files[0]);
    e.target.value = "";
  };
  return html`<nav class="sidebar ${isShown ? "shown" : ""}" aria-label="Conversations" id="sidebar">
    <div class="side-head">
      <a class="brand" href="#" onClick=${hide}><img src="/web/icon.svg" alt="" width="22" height="22" />everwarm</a>
      <span class="grow"></span><${ThemeButton} />
      <button type="button" class="icon-button only-narrow" aria-label="Close the list" onClick=${hide}><${Icon} name="close" /></button>
    </div>
    <a class="button new" href="#" onClick=${hide}><${Icon} name="plus" />New chat</a>
    <label class="search"><${Icon} name="search" /><span class="visually-hidden">Search conversations</span>
      <input type="search" id="search" placeholder="Search" value=${store.query.value} onInput=${(e) => store.search(e.target.value)} /><kbd>/</kbd></label>
    <div class="list" tabindex="-1" onClick=${(e) => e.target.closest("a") && hide()}>
      ${groups(all).map(([name, some]) => html`<section key=${name}><h2>${name}</h2><ul>
        ${some.map((s) => html`<${Entry} key=${s.id} session=${s} />`)}</ul></section>`)}
      ${!all.length && html`<p class="quiet none">${store.query.value ? "Nothing is found." : "Conversations will be listed here."}</p>`}
      ${store.hasMore.value && html`<button type="button" class="link" onClick=${store.readMore}>Show more</button>`}
    </div>
    <div class="side-foot">
      <button type="button" class="link" onClick=${() => file.current.click()}>Import</button>
      <input type="file" accept="application/json,.json" hidden ref=${file} onChange=${take} aria-label="Import a conversation" />
      <span class="grow"></span><a class="link" href="/dashboard"><${Icon} name="gauge" />Dashboard</a>
    </div>
  </nav>`;
}
