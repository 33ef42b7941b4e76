// How warm a reply was: the badge, and the turn's record behind it.
import { html, useEffect, useRef, useState } from "./lib.js";
import { Icon } from "./lib.js";
import { count, percent, plural, seconds } from "./format.js";

const FROM = {
  nothing: "nothing was there yet",
  live: "this conversation's own state, still live",
  rewind: "a live state, cut back to the branch",
  fork: "a copy of part of a live state",
  pieces: "pieces resting in memory",
  disk: "files on disk",
};
const PHASES = [
  ["parse_s", "Parse the request"],
  ["render_s", "Render the prompt"],
  ["wait_s", "Wait for the engine"],
  ["restore_s", "Restore the past"],
  ["prefill_s", "Read new tokens"],
  ["decode_s", "Write the reply"],
  ["commit_s", "File the state"],
];

/** `99.8% warm · 212 new of 101,334 · 0.5 s`, with `40 again` where more was read than was new. */
export function summary(turn) {
  const warm = turn.cached_tokens / Math.max(turn.prompt_tokens, 1);
  const first = turn.cached_tokens ? `${percent(warm)} warm` : "cold";
  const read = `${count(turn.prefilled_tokens)} ${turn.miss ? "read" : "new"} of ${count(turn.prompt_tokens)}`;
  const again = turn.again ? `${count(turn.again)} again` : "";
  return [first, read, again, turn.ttft_s === null ? "no token" : seconds(turn.ttft_s)].filter(Boolean).join(" · ");
}

/** Whether something was lost: what opens a reply may have to be read once more beside that. */
export const isLost = (miss) => Boolean(miss) && miss.part !== "scaffold";

/** What a reply's prompt cost; a click opens its record. */
export function Badge({ turn }) {
  const [isOpen, setOpen] = useState(false);
  const kind = isLost(turn.miss) ? "missed" : turn.cached_tokens ? "warm" : "cold";
  const why = turn.miss ? ` ${turn.miss.cause}` : "";
  return html`<button type="button" class="badge ${kind}" title="What this reply cost.${why}" aria-haspopup="dialog"
      onClick=${() => setOpen(true)}>
      <span class="dot" aria-hidden="true"></span><span>${summary(turn)}</span>
    </button>
    ${isOpen && html`<${Dialog} title="What this reply cost" close=${() => setOpen(false)}><${Record} turn=${turn} /><//>`}`;
}

/** A modal window; Escape, its cross and a click beside it close it. */
export function Dialog({ title, close, children, wide }) {
  const box = useRef(null);
  useEffect(() => {
    box.current.showModal();
  }, []);
  const onClick = (e) => e.target === box.current && close();
  return html`<dialog ref=${box} class=${wide ? "wide" : ""} aria-label=${title} onClose=${close} onClick=${onClick}>
    <div class="dialog-body">
      <header><h2>${title}</h2>
        <button type="button" class="icon-button" aria-label="Close" onClick=${close}><${Icon} name="close" /></button>
      </header>
      ${children}
    </div>
  </dialog>`;
}

/** All that is recorded of a turn. */
export function Record({ turn }) {
  const rate = turn.decode_s > 0 ? (turn.completion_tokens - 1) / turn.decode_s : NaN;
  const facts = [
    ["Prompt", plural(turn.prompt_tokens, "token")],
    ["Warm", `${count(turn.cached_tokens)} from ${FROM[turn.cached_from] ?? turn.cached_from}`],
    ["Read", plural(turn.prefilled_tokens, "token")],
    ["New in the conversation", plural(turn.new_tokens, "token")],
    ["Read again", plural(turn.again ?? 0, "token")],
    ...(turn.sticky_reminders ? [["Reminders kept", `in ${plural(turn.sticky_reminders, "message")}; the client took them out`]] : []),
    ["Reply", `${plural(turn.completion_tokens, "token")}${turn.reasoning_tokens ? `, ${count(turn.reasoning_tokens)} of reasoning` : ""}`],
    ["First token after", seconds(turn.ttft_s ?? NaN)],
    ["Speed", Number.isFinite(rate) && rate > 0 ? `${rate.toFixed(1)} tokens/s` : "–"],
    ["Whole turn", seconds(turn.total_s)],
    ["Ended", { stop: "by itself", length: "at the limit of tokens", cancelled: "stopped", tool_calls: "with tool calls", error: "by a fault", engine_died: "where the engine ended" }[turn.finish] ?? turn.finish],
    ["Model", turn.model],
  ];
  return html`<${Split} warm=${turn.cached_tokens} read=${turn.prefilled_tokens} />
    ${isLost(turn.miss) ? html`<${Missed} miss=${turn.miss} />` : turn.miss && html`<p class="quiet">${turn.miss.cause}.</p>`}
    <dl class="facts">${facts.map(([k, v]) => html`<div key=${k}><dt>${k}</dt><dd>${v}</dd></div>`)}</dl>
    <${Phases} turn=${turn} />
    <p class="quiet mono">${turn.id}</p>`;
}

function Split({ warm, read }) {
  const label = `${count(warm)} tokens were warm, ${count(read)} were read`;
  return html`<div class="split" role="img" aria-label=${label}>
      <span class="warm" style=${{ flexGrow: warm }}></span><span class="read" style=${{ flexGrow: Math.max(read, (warm + read) / 200) }}></span>
    </div>
    <div class="legend"><span class="key warm">warm ${count(warm)}</span><span class="key read">read ${count(read)}</span></div>`;
}

/** Why something was read again. */
export function Missed({ miss }) {
  const lost = [
    miss.by_text && `${plural(miss.by_text, "token")} by a changed text`,
    miss.by_cache && `${plural(miss.by_cache, "token")} by eviction or distance to a checkpoint`,
  ].filter(Boolean);
  return html`<section class="missed">
    <h3>Read again from token ${count(miss.at)}${miss.part ? `, in ${miss.part}` : ""}</h3>
    <p>${miss.cause}</p>
    ${lost.length > 0 && html`<p class="quiet">Lost: ${lost.join(", ")}.</p>`}
    ${(miss.before || miss.after) && html`<div class="before-after">
      <div><h4>Before</h4><pre tabindex="0">${miss.before || "(nothing)"}</pre></div>
      <div><h4>Now</h4><pre tabindex="0">${miss.after || "(nothing)"}</pre></div>
    </div>`}
  </section>`;
}

function Phases({ turn }) {
  const longest = Math.max(...PHASES.map(([k]) => turn[k] ?? 0), 1e-9);
  return html`<h3>Where the time went</h3>
    <table class="phases"><tbody>${PHASES.map(([k, name]) => html`<tr key=${k}>
      <th scope="row">${name}</th>
      <td class="bar"><span style=${{ width: `${(100 * (turn[k] ?? 0)) / longest}%` }}></span></td>
      <td class="num">${seconds(turn[k] ?? 0)}</td>
    </tr>`)}</tbody></table>`;
}
