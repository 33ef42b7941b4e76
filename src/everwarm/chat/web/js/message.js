// One message: what was said, thought and called, and what can be done with it.
import { html, useEffect, useRef, useState } from "./lib.js";
import { Icon } from "./lib.js";
import { copyText } from "./code.js";
import { count } from "./format.js";
import { Progress } from "./progress.js";
import { Prose } from "./prose.js";
import { Badge } from "./turn.js";
import * as store from "./store.js";

const words = (text) => (text.trim() ? text.trim().split(/\s+/).length : 0);

export function Reasoning({ text, isOpen }) {
  if (!text) return null;
  return html`<details class="reasoning">
    <summary><span class=${isOpen ? "pulse" : ""}>${isOpen ? "Thinking" : "Thought"}</span> <span class="quiet">${count(words(text))} words</span></summary>
    <${Prose} text=${text} isOpen=${isOpen} />
  </details>`;
}

function pretty(text) {
  try {
    return JSON.stringify(JSON.parse(text), null, 2);
  } catch {
    return text;
  }
}

export function Calls({ calls }) {
  return (calls ?? []).filter(Boolean).map((c, i) => html`<details class="call" key=${c.id ?? i}>
    <summary>Tool call <code>${c.name}</code></summary>
    <pre tabindex="0">${pretty(c.arguments ?? "")}</pre>
  </details>`);
}

/** < 1/2 > between messages with the same parent. */
function Switcher({ message }) {
  const all = message.siblings ?? [];
  if (all.length < 2) return null;
  const i = all.indexOf(message.id);
  const go = (step) => store.select(all[i + step]);
  return html`<span class="switcher" role="group" aria-label="Versions of this message">
    <button type="button" class="icon-button" aria-label="Earlier version" disabled=${i <= 0 || store.busy.value} onClick=${() => go(-1)}><${Icon} name="left" /></button>
    <span class="num">${i + 1}/${all.length}</span>
    <button type="button" class="icon-button" aria-label="Later version" disabled=${i >= all.length - 1 || store.busy.value} onClick=${() => go(1)}><${Icon} name="right" /></button>
  </span>`;
}

export function Action({ icon, name, onClick, disabled }) {
  return html`<button type="button" class="icon-button" aria-label=${name} title=${name} disabled=${disabled} onClick=${onClick}><${Icon} name=${icon} /></button>`;
}

function Copy({ text }) {
  const [said, say] = useState("");
  const copy = async () => {
    say((await copyText(text)) ? "Copied" : "Not copied");
    setTimeout(() => say(""), 1500);
  };
  return html`<${Action} icon="copy" name="Copy text" onClick=${copy} /><span class="said" role="status">${said}</span>`;
}

function Editor({ message, close }) {
  const box = useRef(null);
  const [text, change] = useState(message.text);
  useEffect(() => {
    box.current.focus();
    box.current.selectionStart = text.length;
  }, []);
  const save = () => {
    if (!text.trim()) return;
    close();
    store.edit(message, text);
  };
  const onKeyDown = (e) => {
    if (e.key === "Escape") {
      e.stopPropagation();
      close();
    } else if (e.key === "Enter" && !e.shiftKey && !e.isComposing) {
      e.preventDefault();
      save();
    }
  };
  return html`<div class="editor">
    <textarea ref=${box} aria-label="Edit message" rows=${Math.min(12, text.split("\n").length + 1)} value=${text}
      onInput=${(e) => change(e.target.value)} onKeyDown=${onKeyDown}></textarea>
    <div class="row"><span class="quiet">The old version stays; switch with &lt; 1/2 &gt;.</span><span class="grow"></span>
      <button type="button" onClick=${close}>Cancel</button>
      <button type="button" class="primary" disabled=${!text.trim()} onClick=${save}>Send</button></div>
  </div>`;
}

export function UserMessage({ message, isEdited, edit }) {
  const isBusy = store.busy.value;
  return html`<article class="message user" aria-label="You">
    ${isEdited
      ? html`<${Editor} message=${message} close=${() => edit(null)} />`
      : html`<div class="bubble" dir="auto">${message.text}</div>
        <div class="actions">
          <${Switcher} message=${message} /><${Copy} text=${message.text} />
          <${Action} icon="edit" name="Edit and branch" disabled=${isBusy} onClick=${() => edit(message.id)} />
        </div>`}
  </article>`;
}

const ENDS = { length: "Cut at the limit of tokens.", cancelled: "Stopped.", error: "Ended by a fault.", engine_died: "The engine ended here." };

export function Reply({ message, isLast }) {
  const isBusy = store.busy.value;
  return html`<article class="message reply" aria-label="Reply">
    <${Reasoning} text=${message.reasoning} />
    <${Prose} text=${message.text} />
    <${Calls} calls=${message.tool_calls} />
    ${!message.text && !message.tool_calls?.length && html`<p class="quiet">No text.</p>`}
    ${ENDS[message.finish] && html`<p class="ended" title=${message.turn?.error}>${ENDS[message.finish]}
      ${isLast && !message.tool_calls?.length && html` <button type="button" disabled=${isBusy} onClick=${() => store.goOn(message)}>Continue</button>`}</p>`}
    <div class="actions">
      <${Switcher} message=${message} /><${Copy} text=${message.text} />
      <${Action} icon="redo" name="Regenerate" disabled=${isBusy} onClick=${() => store.regenerate(message)} />
      <${Action} icon="branch" name="Branch from here" disabled=${isBusy} onClick=${() => store.branchAt(message.id)} />
      ${isLast && html`<${Action} icon="undo" name="Remove the last turn" disabled=${isBusy} onClick=${store.undo} />`}
      ${message.turn && html`<${Badge} turn=${message.turn} />`}
    </div>
  </article>`;
}

const NAMES = { tool: "Result of a tool", system: "System prompt", developer: "System prompt" };

/** What neither the person nor the model said: a tool's result, a system prompt in the middle. */
export function Aside({ message }) {
  return html`<article class="message call" aria-label=${NAMES[message.role] ?? message.role}>
    <details><summary>${NAMES[message.role] ?? message.role} <span class="quiet">${count(words(message.text))} words</span></summary>
      <pre tabindex="0">${message.text}</pre></details>
  </article>`;
}

const SAID_BY = { user: "You", assistant: "Reply", summary: "Summary" };

/** A summary that stands for what was said before it, which can still be read. */
export function Summary({ message }) {
  const [earlier, show] = useState(null);
  const toggle = async () => show(earlier ? null : await store.coveredBy(message));
  return html`<article class="message summary" aria-label="Summary">
    <h2>Earlier messages are summarised from here</h2>
    <details open><summary>Summary <span class="quiet">${count(words(message.text))} words</span></summary><${Prose} text=${message.text} /></details>
    <div class="row"><button type="button" aria-expanded=${Boolean(earlier)} onClick=${toggle}>${earlier ? "Hide the earlier messages" : "Read the earlier messages"}</button>
      <button type="button" disabled=${store.busy.value} onClick=${store.uncompact}>Undo the summary</button></div>
    ${earlier && html`<div class="earlier" tabindex="0" role="region" aria-label="Earlier messages">${earlier.map((m) => html`<div key=${m.id} class="message"><p class="quiet">${SAID_BY[m.role] ?? NAMES[m.role] ?? m.role}</p>
      <${Prose} text=${m.text} /></div>`)}</div>`}
    ${message.turn && html`<div class="actions"><${Badge} turn=${message.turn} /></div>`}
  </article>`;
}

/** The reply that is being written. */
export function LiveReply({ now }) {
  const isWriting = now.state === "writing" || now.state === "thinking";
  return html`<article class="message reply live" aria-label="Reply, being written" aria-busy="true">
    ${now.sumsUp && html`<p class="quiet">Summing up, so that the conversation can go on. All of it stays.</p>`}
    ${now.state === "reading" && now.progress && !now.text && html`<${Progress} progress=${now.progress} />`}
    ${now.state === "waiting" && html`<p class="quiet pulse">Waiting for the engine</p>`}
    <${Reasoning} text=${now.reasoning} isOpen=${now.state === "thinking"} />
    <${Prose} text=${now.text} isOpen=${true} />
    <${Calls} calls=${now.calls} />
    ${now.state === "reconnecting" && html`<p class="quiet pulse" role="status">Connection lost; joining the reply again</p>`}
    ${isWriting && html`<span class="caret" aria-hidden="true"></span>`}
  </article>`;
}
