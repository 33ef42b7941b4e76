// Small pictures of numbers: a bar of use, a histogram. No library is needed for these.
import { html } from "./lib.js";
import { count, seconds } from "./format.js";

export function Meter({ name, used, limit, show }) {
  const part = limit ? Math.min(1, used / limit) : 0;
  return html`<div class="use"><div class="row"><span>${name}</span><span class="grow"></span><span class="num">${show(used)}${limit ? ` of ${show(limit)}` : ""}</span></div>
    <div class="track" role="img" aria-label="${name}: ${show(used)}${limit ? ` of ${show(limit)}` : ""}"><span class=${part > 0.9 ? "full" : ""} style=${{ width: `${100 * part}%` }}></span></div></div>`;
}

/** `buckets`: [{le: seconds or null, count}] */
export function Histogram({ buckets }) {
  const most = Math.max(1, ...buckets.map((b) => b.count));
  const label = buckets.filter((b) => b.count).map((b) => `${count(b.count)} ${b.le === null ? "later" : `within ${seconds(b.le)}`}`).join(", ");
  return html`<div class="histogram" role="img" aria-label="Time to the first token: ${label || "no turns yet"}">
    ${buckets.map((b) => html`<div key=${b.le} class="bin"><span class="num">${b.count ? count(b.count) : ""}</span>
      <span class="pillar" style=${{ height: `${(100 * b.count) / most}%` }}></span>
      <span class="at num">${b.le === null ? "more" : b.le < 1 ? `${b.le * 1000} ms` : b.le < 60 ? `${b.le} s` : `${b.le / 60} min`}</span></div>`)}
  </div>`;
}
