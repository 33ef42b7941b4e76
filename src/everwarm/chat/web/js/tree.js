// The cache's tree, drawn: wide by tokens, coloured by where it rests, checkpoints marked.
import { html, useState } from "./lib.js";
import { bytes, count, plural } from "./format.js";
import { layOut, place, ticks } from "./layout.js";
import { Dialog } from "./turn.js";

const TIERS = { memory: "in memory", both: "in memory and on disk", disk: "on disk", gone: "only its tokens are known" };
const WIDTH = 1000;
const ROW = 26;
const TOP = 24;

const short = (n) => (n >= 1000 ? `${n / 1000}K` : String(n));

export function Tree({ nodes, titles, act }) {
  const [opened, open] = useState(null);
  if (!nodes.length) return html`<p class="quiet">Nothing is in the cache yet. Talk to the server, and what it has read appears here.</p>`;
  const { placed, rows, hidden, end } = layOut(nodes);
  const x = (at) => Math.round(place(at, end) * (WIDTH - 14) * 10) / 10 + 4;
  const chosen = nodes.find((n) => n.id === opened);
  return html`<div class="tree" tabindex="0" role="region" aria-label="Cache tree">
      <svg viewBox="0 0 ${WIDTH} ${TOP + rows * ROW + 6}" role="group" aria-label="${plural(nodes.length, "node")} of the cache, by token position">
        ${ticks(end).map((t) => html`<g key=${t} class="tick" aria-hidden="true"><line x1=${x(t)} x2=${x(t)} y1="16" y2=${TOP + rows * ROW} /><text x=${x(t) + 3} y="12">${short(t)}</text></g>`)}
        ${placed.map((p) => html`<${Shape} key=${p.node.id} ...${p} x=${x} titles=${titles} open=${open} />`)}
      </svg>
    </div>
    <div class="legend">
      ${["memory", "both", "disk", "gone"].map((t) => html`<span key=${t} class="key tier-${t}">${TIERS[t]}</span>`)}
      <span class="key mark">checkpoint</span><span class="quiet">Positions in tokens, drawn by their square root.</span>
      ${hidden > 0 && html`<span>${plural(hidden, "more row")} not drawn.</span>`}
    </div>
    ${chosen && html`<${Detail} node=${chosen} titles=${titles} act=${act} close=${() => open(null)} />`}`;
}

function Shape({ node, row, fromRow, x, titles, open }) {
  const y = TOP + row * ROW;
  const left = x(node.from);
  const width = Math.max(2, x(node.to) - left - 1);
  const label = `${plural(node.tokens, "token")} from ${count(node.from)}, ${TIERS[node.tier]}${node.checkpoints ? ", checkpoint" : ""}${node.pinned ? ", pinned" : ""}${node.running ? ", in use" : ""}`;
  const onKeyDown = (e) => {
    if (e.key !== "Enter" && e.key !== " ") return;
    e.preventDefault();
    open(node.id);
  };
  const name = node.sessions.map((s) => titles.get(s) ?? s)[0];
  return html`<g class="node tier-${node.tier} ${node.pinned ? "pinned" : ""} ${node.running ? "running" : ""}" role="button" tabindex="0" aria-label=${label}
      onClick=${() => open(node.id)} onKeyDown=${onKeyDown}>
    <title>${label}${name ? `\n${name}` : ""}</title>
    ${fromRow !== null && fromRow !== row && html`<path class="bough" d="M${left} ${TOP + fromRow * ROW + 18}V${y + 9}h2" />`}
    <rect x=${left} y=${y} width=${width} height="18" rx="3" />
    ${node.checkpoints > 0 && html`<circle cx=${left + width} cy=${y + 9} r="3.5" />`}
    ${width > 44 && html`<text x=${left + 6} y=${y + 13}>${count(node.tokens)}</text>`}
  </g>`;
}

function Detail({ node, titles, act, close }) {
  const [isSure, sure] = useState(false);
  const facts = [
    ["Tokens", `${count(node.tokens)}, from ${count(node.from)} to ${count(node.to)}`],
    ["Rests", TIERS[node.tier]],
    ["In memory", bytes(node.bytes)],
    ["On disk", bytes(node.disk_bytes ?? 0)],
    ["Checkpoint at its end", node.checkpoints ? "yes" : "no"],
    ["Pinned", node.pinned ? "yes" : "no"],
    ["Worth", Number.isFinite(node.value) ? Number(node.value).toPrecision(3) : "–"],
  ];
  return html`<${Dialog} title="A part of the cache" close=${close}>
    <dl class="facts">${facts.map(([k, v]) => html`<div key=${k}><dt>${k}</dt><dd>${v}</dd></div>`)}</dl>
    <div><h3>Conversations through it</h3>
      ${node.sessions.length ? html`<ul class="plain">${node.sessions.slice(0, 12).map((s) => html`<li key=${s}><a href="/#${encodeURIComponent(s)}" dir="auto">${titles.get(s) || s}</a></li>`)}</ul>` : html`<p class="quiet">None that is listed.</p>`}</div>
    ${node.running && html`<p class="quiet">A turn uses it now.</p>`}
    <div class="row"><span class="grow"></span>
      <button type="button" onClick=${() => act("pin", { node: node.id, pinned: !node.pinned })}>${node.pinned ? "Unpin" : "Pin"}</button>
      ${isSure
        ? html`<button type="button" class="primary danger" onClick=${() => { close(); act("drop", { node: node.id }); }}>Drop it and all behind it</button>`
        : html`<button type="button" disabled=${node.running} onClick=${() => sure(true)}>Drop</button>`}
    </div>
    <p class="quiet">Pinned parts are spared when room is made. What is dropped is read again when it is needed.</p>
  <//>`;
}
