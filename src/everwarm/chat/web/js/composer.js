// Where a person writes. Enter sends, Shift+Enter breaks the line, Escape stops, Up edits the last.
import { html, useEffect, useLayoutEffect, useRef, useState } from "./lib.js";
import { Icon } from "./lib.js";
import { count } from "./format.js";
import { live } from "./live.js";
import * as store from "./store.js";

const draftKey = (id) => `everwarm.draft.${id ?? "new"}`;

function drafted(id) {
  try {
    return sessionStorage.getItem(draftKey(id)) ?? "";
  } catch {
    return "";
  }
}

function keepDraft(id, text) {
  try {
    if (text) sessionStorage.setItem(draftKey(id), text);
    else sessionStorage.removeItem(draftKey(id));
  } catch {
    // storage may be refused: then a draft is lost with the page
  }
}

export function Composer({ editLast, given }) {
  const id = store.current.value?.id ?? null;
  const [text, set] = useState(drafted(id));
  const box = useRef(null);
  const change = (next) => {
    set(next);
    keepDraft(id, next);
  };
  useEffect(() => {
    set(drafted(id));
    if (matchMedia("(pointer: fine)").matches) box.current.focus();
  }, [id]);
  useEffect(() => {
    if (!given.value) return;
    change(given.value);
    given.value = "";
    box.current.focus();
  }, [given.value]);
  useLayoutEffect(() => {
    box.current.style.height = "auto";
    box.current.style.height = `${Math.min(box.current.scrollHeight, innerHeight * 0.4)}px`;
  }, [text]);

  const submit = async () => {
    const said = text;
    if (!said.trim() || store.busy.value) return;
    change("");
    try {
      await store.send(said);
    } catch {
      keepDraft(store.current.value?.id ?? null, said);
      set((now) => now || said);
    }
  };
  const onKeyDown = (e) => {
    if (e.key === "Enter" && !e.shiftKey && !e.isComposing) {
      e.preventDefault();
      submit();
    } else if (e.key === "ArrowUp" && !text && !store.busy.value) {
      e.preventDefault();
      editLast();
    }
  };
  const onInput = (e) => {
    if (!text) store.prepare();
    change(e.target.value);
  };
  return html`<form class="composer" onSubmit=${(e) => (e.preventDefault(), submit())}>
    <textarea ref=${box} rows="1" aria-label="Message" placeholder="Write a message" value=${text} dir="auto"
      onInput=${onInput} onKeyDown=${onKeyDown}></textarea>
    ${live.value
      ? html`<button type="button" class="round" aria-label="Stop" title="Stop (Esc)" onClick=${store.stop}><${Icon} name="stop" /></button>`
      : html`<button class="round primary" aria-label="Send" title="Send (Enter)" disabled=${!text.trim()}><${Icon} name="send" /></button>`}
  </form>
  <${Foot} />`;
}

function Foot() {
  const session = store.current.value;
  const { used, limit } = session?.context ?? {};
  const part = used && limit ? used / limit : 0;
  const told = { ready: "Its past is warm", reading: "Warming its past", too_long: "Too long for this model" };
  const state = told[store.prepared.value] ?? "";
  return html`<div class="foot">
    <span class="model">${store.model.value?.id ?? ""}</span><span role="status">${state}</span><span class="grow"></span>
    ${used && html`<span class="num" title="Tokens of the context in use">${count(used)}${limit ? ` of ${count(limit)}` : ""} tokens</span>`}
    ${part > 0 && html`<div class="track" role="meter" aria-label="Context in use" aria-valuemin="0" aria-valuemax="100" aria-valuenow=${Math.round(100 * part)}><span style=${{ width: `${100 * Math.min(part, 1)}%` }}></span></div>`}
    ${part > 0.5 && !session.compacted && html`<button type="button" class="link" disabled=${store.busy.value} onClick=${store.compact}>Summarise</button>`}
  </div>`;
}
