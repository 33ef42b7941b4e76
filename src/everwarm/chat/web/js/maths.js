// TeX with KaTeX, which is loaded when the first formula comes. A formula that it refuses stays text.

let katex = null;
let loading = null;

function load() {
  if (loading) return loading;
  const sheet = document.createElement("link");
  sheet.rel = "stylesheet";
  sheet.href = "/web/vendor/katex.css";
  document.head.append(sheet);
  loading = import("../vendor/katex.mjs").then((module) => { katex = module.default; });
  return loading;
}

const OPTIONS = { trust: false, throwOnError: true, strict: "ignore", output: "html", maxSize: 20, maxExpand: 200 };

function set(element) {
  const tex = element.textContent;
  const drawn = document.createElement("span");
  try {
    katex.render(tex, drawn, { ...OPTIONS, displayMode: element.classList.contains("display") });
  } catch {
    element.classList.add("raw");
    return;
  }
  element.setAttribute("role", "img");
  element.setAttribute("aria-label", tex);
  element.replaceChildren(drawn);
}

/** Set every formula of a fragment: now where KaTeX is here, else when it is. */
export function dressMaths(fragment) {
  const found = [...fragment.querySelectorAll(".maths")];
  if (!found.length) return;
  if (katex) found.forEach(set);
  else load().then(() => found.forEach(set));
}
