// Markdown to DOM. Raw HTML is shown as text, images as links, and DOMPurify is the second wall.
//
// A growing text is split into blocks; finished ones keep their text and so their DOM, and only the
// last one is drawn again.
import { Marked } from "../vendor/marked.mjs";
import DOMPurify from "../vendor/purify.mjs";
import { dressCode } from "./code.js";
import { dressMaths } from "./maths.js";

const escapes = { "&": "&amp;", "<": "&lt;", ">": "&gt;", '"': "&quot;", "'": "&#39;" };
const escape = (text) => text.replace(/[&<>"']/g, (c) => escapes[c]);

const RULES = [
  { name: "maths", level: "block", open: "$$", rule: /^\$\$([\s\S]+?)\$\$(?:\n+|$)/ },
  { name: "bracketMaths", level: "block", open: "\\[", rule: /^\\\[([\s\S]+?)\\\](?:\n+|$)/ },
  { name: "inlineDisplay", level: "inline", open: "$$", rule: /^\$\$([^\n]+?)\$\$/ },
  { name: "inlineMaths", level: "inline", open: "$", rule: /^\$(?![\s$])((?:\\.|[^$\n\\])+?)(?<!\s)\$(?!\d)/ },
  { name: "parenMaths", level: "inline", open: "\\(", rule: /^\\\(([^\n]+?)\\\)/ },
];

function maths({ name, level, open, rule }) {
  const isDisplay = level === "block" || name === "inlineDisplay";
  return {
    name,
    level,
    start: (source) => { const at = source.indexOf(open); return at < 0 ? undefined : at; },
    tokenizer(source) {
      const found = rule.exec(source);
      return found ? { type: name, raw: found[0], tex: found[1].trim() } : undefined;
    },
    renderer: ({ tex }) =>
      isDisplay ? `<div class="maths display">${escape(tex)}</div>` : `<span class="maths">${escape(tex)}</span>`,
  };
}

const marked = new Marked({
  gfm: true,
  breaks: false,
  extensions: RULES.map(maths),
  renderer: {
    html: ({ text }) => escape(text),
    checkbox: ({ checked }) => `<span class="check${checked ? " done" : ""}">${checked ? "[x]" : "[ ]"}</span> `,
    image({ href, text }) {
      return `<a href="${escape(href)}">image: ${escape(text || href)}</a>`;
    },
    code({ text, lang }) {
      const name = (lang ?? "").match(/^[\w+#-]{1,24}/)?.[0] ?? "";
      return `<pre><code class="language-${escape(name)}">${escape(text)}</code></pre>`;
    },
  },
});

const ALLOWED = {
  ALLOWED_TAGS: [
    "a", "blockquote", "br", "code", "del", "div", "em", "h1", "h2", "h3", "h4", "h5", "h6", "hr", "li",
    "ol", "p", "pre", "span", "strong", "table", "tbody", "td", "th", "thead", "tr", "ul",
  ],
  ALLOWED_ATTR: ["href", "title", "class", "start", "align"],
  ALLOWED_URI_REGEXP: /^(?:https?|mailto):/i,
  ADD_URI_SAFE_ATTR: ["start", "align"],
  ALLOW_DATA_ATTR: false,
  ALLOW_ARIA_ATTR: false,
  RETURN_DOM_FRAGMENT: true,
};

/** Sanitised DOM of one block. */
export function draw(source, isOpen) {
  const fragment = DOMPurify.sanitize(marked.parse(source), ALLOWED);
  for (const link of fragment.querySelectorAll("a")) {
    if (!link.hasAttribute("href")) continue;
    link.target = "_blank";
    link.rel = "noopener noreferrer nofollow";
  }
  for (const table of fragment.querySelectorAll("table")) wrap(table);
  dressMaths(fragment);
  dressCode(fragment, isOpen);
  return fragment;
}

function wrap(table) {
  const box = document.createElement("div");
  box.className = "wide";
  box.tabIndex = 0;
  table.replaceWith(box);
  box.append(table);
}

/** Splits a growing text into blocks. Keep one per text; it never looks at finished blocks again. */
export class Blocks {
  constructor() {
    this.finished = [];
    this.length = 0;
    this.start = "";
  }

  /** The blocks of `source`, the last of which may still grow. */
  of(source) {
    if (!source.startsWith(this.start) || source.length < this.length) {
      this.finished = [];
      this.length = 0;
    }
    const raws = marked.lexer(source.slice(this.length)).map((t) => t.raw);
    while (raws.length > 1 && !raws.at(-1).trim()) raws.push(raws.splice(-2).join(""));
    for (const raw of raws.slice(0, -1)) {
      this.length += raw.length;
      if (raw.trim()) this.finished.push(raw);
    }
    this.start = source.slice(0, Math.min(this.length, 64));
    return [...this.finished, ...raws.slice(-1)];
  }
}
