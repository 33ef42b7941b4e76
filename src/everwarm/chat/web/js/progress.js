// How far a prompt is read.
import { html } from "./lib.js";
import { count, percent, seconds } from "./format.js";

/** How far the prompt is read: tokens, percent, time left; or what the turn waits for. */
export function Progress({ progress }) {
  const { done, total, seconds_left: left, waits } = progress;
  if (waits) return html`<p class="quiet pulse">${waits[0].toUpperCase() + waits.slice(1)}</p>`;
  const part = done / Math.max(total, 1);
  return html`<div class="progress">
    <div class="row"><span>Reading ${count(done)} of ${count(total)} tokens</span><span class="grow"></span>
      <span class="num">${percent(part, 0)}${left !== null && left > 0.5 ? ` · ${seconds(left)} left` : ""}</span></div>
    <div class="track" role="progressbar" aria-label="Reading the prompt" aria-valuemin="0" aria-valuemax="100" aria-valuenow=${Math.floor(100 * part)}>
      <span style=${{ width: `${100 * part}%` }}></span></div>
  </div>`;
}
