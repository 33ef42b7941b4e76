// Code blocks: a head with language and copy button, and colours from highlight.js, loaded when needed.
import DOMPurify from "../vendor/purify.mjs";

const LANGUAGES = {
  bash: "bash", sh: "bash", shell: "bash", zsh: "bash", console: "bash", python: "python", py: "python",
  javascript: "javascript", js: "javascript", jsx: "javascript", mjs: "javascript", typescript: "typescript",
  ts: "typescript", tsx: "typescript", json: "json", jsonc: "json", xml: "xml", html: "xml", svg: "xml",
  css: "css", c: "c", h: "c", cpp: "cpp", "c++": "cpp", rust: "rust", rs: "rust", go: "go", java: "java",
  sql: "sql", yaml: "yaml", yml: "yaml", markdown: "markdown", md: "markdown", diff: "diff", patch: "diff",
  swift: "swift", ini: "ini", toml: "ini", dockerfile: "dockerfile", docker: "dockerfile",
};
const MAX_CHARS = 60_000;
const MAX_LIVE_CHARS = 6_000;
const ALLOWED = { ALLOWED_TAGS: ["span"], ALLOWED_ATTR: ["class"], RETURN_DOM_FRAGMENT: true };

let core = null;
const loaded = new Map();

function load(language) {
  if (!loaded.has(language)) {
    const both = Promise.all([
      import("../vendor/highlight.mjs"),
      import(`../vendor/languages/${language}.mjs`),
    ]);
    loaded.set(language, both.then(([engine, grammar]) => {
      core = engine.default;
      core.registerLanguage(language, grammar.default);
    }));
  }
  return loaded.get(language);
}

function colour(code, language) {
  const { value } = core.highlight(code.textContent, { language, ignoreIllegals: true });
  code.replaceChildren(DOMPurify.sanitize(value, ALLOWED));
}

/** Dress every code block of a fragment. `isOpen`: it may still grow. */
export function dressCode(fragment, isOpen) {
  for (const pre of fragment.querySelectorAll("pre")) {
    const code = pre.firstElementChild;
    const name = code.className.replace("language-", "").toLowerCase();
    pre.tabIndex = 0;
    pre.replaceWith(framed(pre, name));
    const language = LANGUAGES[name];
    if (!language || code.textContent.length > (isOpen ? MAX_LIVE_CHARS : MAX_CHARS)) continue;
    if (core?.getLanguage(language)) colour(code, language);
    else load(language).then(() => colour(code, language));
  }
}

function framed(pre, name) {
  const box = document.createElement("div");
  box.className = "code";
  const head = document.createElement("div");
  head.className = "code-head";
  const label = document.createElement("span");
  label.textContent = name || "text";
  const copy = document.createElement("button");
  copy.type = "button";
  copy.className = "copy-code";
  copy.textContent = "Copy";
  head.append(label, copy);
  box.append(head, pre.cloneNode(false));
  box.lastElementChild.append(...pre.childNodes);
  return box;
}

/** Copy text; says whether it worked. Works also where the clipboard API is refused (plain http). */
export async function copyText(text) {
  try {
    await navigator.clipboard.writeText(text);
    return true;
  } catch {
    const area = document.createElement("textarea");
    area.value = text;
    area.className = "visually-hidden";
    document.body.append(area);
    area.select();
    const worked = document.execCommand("copy");
    area.remove();
    return worked;
  }
}

/** A click on a copy button anywhere in rendered text. */
export async function onCopyClick(event) {
  const button = event.target.closest?.(".copy-code");
  if (!button) return;
  const worked = await copyText(button.closest(".code").querySelector("pre").textContent);
  button.textContent = worked ? "Copied" : "Select it and copy by hand";
  setTimeout(() => { button.textContent = "Copy"; }, 1500);
}
