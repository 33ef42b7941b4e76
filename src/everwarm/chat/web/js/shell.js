// What both pages share: theme, the form that asks for a key, the line that says we are offline.
import { html, signal, useState } from "./lib.js";
import { isOffline, needsKey, setKey } from "./api.js";
import { Icon } from "./lib.js";

const root = document.documentElement;
const system = matchMedia("(prefers-color-scheme: dark)");
const isDark = () => (root.dataset.theme ? root.dataset.theme === "dark" : system.matches);
const dark = signal(isDark());
system.addEventListener("change", () => { dark.value = isDark(); });

function turnTheme() {
  root.dataset.theme = isDark() ? "light" : "dark";
  dark.value = isDark();
  try {
    localStorage.setItem("everwarm.theme", root.dataset.theme);
  } catch {
    // storage may be refused: then the choice is good until the page is left
  }
}

export function ThemeButton() {
  const name = dark.value ? "Light theme" : "Dark theme";
  return html`<button type="button" class="icon-button" aria-label=${name} title=${name} onClick=${turnTheme}>
    <${Icon} name=${dark.value ? "sun" : "moon"} /></button>`;
}

export function Offline() {
  return html`<div class="offline" role="status" hidden=${!isOffline.value}>
    The server cannot be reached. Trying again; nothing is lost.</div>`;
}

const trouble = signal("");

/** Says why the engine cannot answer now; asked for when a turn failed, and until it can again. */
export function EngineNotice() {
  return html`<div class="offline" role="status" hidden=${!trouble.value}>${trouble.value}</div>`;
}

let looking = 0;

/** Look whether the engine can answer; while it cannot, look again. */
export async function lookAtEngine() {
  clearTimeout(looking);
  try {
    const { status, why } = await (await fetch("/health")).json();
    trouble.value = status === "ok" ? "" : `${why} ${status === "failed" ? "" : "Messages wait until it can answer."}`;
  } catch {
    trouble.value = ""; // the line that says that we are offline says enough
  }
  if (trouble.value) looking = setTimeout(lookAtEngine, 2000);
}

/** What does not hold for this model, where anything does not. */
export function Limits({ model }) {
  const limits = model?.everwarm?.limits ?? [];
  return limits.length > 0 && html`<div class="limits" role="note" aria-label="About this model">${limits.map((l) => html`<p key=${l}>${l}</p>`)}</div>`;
}

/** Asks for the key; `onKey` reads the page's data anew. */
export function Login({ onKey }) {
  const [key, change] = useState("");
  const [keep, setKeep] = useState(false);
  if (!needsKey.value) return null;
  const submit = (e) => {
    e.preventDefault();
    setKey(key, keep);
    onKey();
  };
  return html`<div class="curtain"><form class="login" onSubmit=${submit} aria-label="API key">
    <h1>This server has a key</h1>
    <p>It was printed when the server started, or stands in EVERWARM_API_KEY.</p>
    <label>API key<input type="password" autocomplete="current-password" value=${key} autofocus
      onInput=${(e) => change(e.target.value)} /></label>
    <label class="line"><input type="checkbox" checked=${keep} onChange=${(e) => setKeep(e.target.checked)} /> Remember it in this browser</label>
    <button class="primary" disabled=${!key.trim()}>Continue</button>
  </form></div>`;
}

/** Run `again` when the server can be reached again. */
export function whenBack(again) {
  let waits = 0;
  isOffline.subscribe((off) => {
    clearTimeout(waits);
    if (!off) return;
    const probe = async () => {
      try {
        await fetch("/health");
        isOffline.value = false;
        again();
      } catch {
        waits = setTimeout(probe, 2000);
      }
    };
    waits = setTimeout(probe, 1000);
  });
}
