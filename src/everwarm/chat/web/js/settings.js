// How this conversation is answered: system prompt, sampling, thinking. And what the model is.
import { html, useState } from "./lib.js";
import { count } from "./format.js";
import { Limits } from "./shell.js";
import { Dialog } from "./turn.js";
import * as store from "./store.js";

const NUMBERS = [
  ["temperature", "Temperature", "0.7", { min: 0, max: 2, step: 0.05 }, "0 always takes the likeliest token"],
  ["top_p", "Top p", "1", { min: 0, max: 1, step: 0.05 }, "draws from the likeliest tokens that make up this part"],
  ["max_tokens", "Longest reply", "no limit", { min: 1, step: 1 }, "in tokens"],
  ["thinking_budget", "Thinking budget", "no limit", { min: 1, step: 1 }, "tokens of reasoning before it must answer"],
  ["compact_at", "Sum up when full to", "as the server", { min: 0.05, max: 1, step: 0.05 }, "part of the context; 1 only when asked"],
];

const numberOf = (text) => (text === "" || text === null || text === undefined ? null : Number(text));

export function Settings({ close }) {
  const session = store.current.value;
  const model = store.model.value;
  const [now, set] = useState({ ...(session ? session.settings : store.draftSettings.value) });
  const change = (what) => set({ ...now, ...what });
  const save = async (e) => {
    e.preventDefault();
    const clean = { ...now, system: now.system?.trim() ? now.system : null };
    for (const [key] of NUMBERS) clean[key] = numberOf(clean[key]);
    if (session) {
      if (!(await store.change(session.id, { settings: clean }))) return;
    } else {
      store.draftSettings.value = Object.fromEntries(Object.entries(clean).filter(([, v]) => v !== null && v !== undefined));
    }
    close();
  };
  return html`<${Dialog} title="Model and settings" close=${close}>
    ${model && html`<dl class="facts"><div><dt>Model</dt><dd>${model.id}</dd></div>
      <div><dt>Context</dt><dd>${count(model.context_length ?? model.max_model_len)} tokens</dd></div></dl>`}
    <${Limits} model=${model} />
    <form class="settings" onSubmit=${save}>
      <label>System prompt<textarea rows="4" value=${now.system ?? ""} placeholder="How the model is to behave in this conversation"
        onInput=${(e) => change({ system: e.target.value })}></textarea></label>
      <p class="quiet">${session && store.messages.value.length ? "A changed system prompt makes the whole conversation be read again, once." : "It is read once, and then stays warm."}</p>
      <div class="grid">${NUMBERS.map(([key, name, usual, limits, what]) => html`<label key=${key}>${name}
        <input type="number" ...${limits} placeholder=${usual} value=${now[key] ?? ""} onInput=${(e) => change({ [key]: e.target.value })} />
        <span class="quiet">${what}</span></label>`)}</div>
      <label>Thinking<select value=${now.thinking === true ? "on" : now.thinking === false ? "off" : ""}
        onChange=${(e) => change({ thinking: { on: true, off: false }[e.target.value] ?? null })}>
        <option value="">as the model does</option><option value="on">on</option><option value="off">off</option></select></label>
      <div class="row"><span class="grow"></span><button type="button" onClick=${close}>Cancel</button><button class="primary">Save</button></div>
    </form>
  <//>`;
}
