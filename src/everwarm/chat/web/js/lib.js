// The view library in one place: Preact, htm and signals, vendored.
import htm from "../vendor/htm.mjs";
import { createElement } from "../vendor/preact.mjs";

export const html = htm.bind(createElement);
export { render, createElement } from "../vendor/preact.mjs";
export { useEffect, useLayoutEffect, useMemo, useRef, useState } from "../vendor/hooks.mjs";
export { batch, computed, effect, signal, useComputed, useSignal } from "../vendor/signals.mjs";

/** A stroke icon of 16 units, by the path it draws. */
const PATHS = {
  menu: "M2 4h12M2 8h12M2 12h12",
  plus: "M8 3v10M3 8h10",
  search: "M7 12A5 5 0 1 0 7 2a5 5 0 0 0 0 10zM11 11l3 3",
  send: "M8 13V3M3.5 7.5 8 3l4.5 4.5",
  stop: "M4.5 4.5h7v7h-7z",
  copy: "M5.5 5.5h8v8h-8zM3 10.5H2.5v-8h8V3",
  redo: "M13 8a5 5 0 1 1-1.5-3.600M12 1.5v3H9",
  edit: "M10.5 3 13 5.5 5.5 13H3v-2.5z",
  branch: "M4.5 4v8M4.5 8c4 0 7-.5 7-3.5M4.5 2.5a1.5 1.5 0 1 0 0 .01M11.5 2.5a1.5 1.5 0 1 0 0 .01M4.5 13.5a1.5 1.5 0 1 0 0 .01",
  undo: "M3 6h6.5a3.5 3.5 0 0 1 0 7H6M6 3 3 6l3 3",
  more: "M3.5 8h.01M8 8h.01M12.5 8h.01",
  pin: "M6 2.5h4l-.5 4 2 2v1h-7v-1l2-2zM8 9.5v4",
  left: "M10 3 5 8l5 5",
  right: "M6 3l5 5-5 5",
  close: "M4 4l8 8M12 4l-8 8",
  sun: "M8 5a3 3 0 1 0 0 6 3 3 0 0 0 0-6zM8 1.5v1M8 13.5v1M1.5 8h1M13.5 8h1M3.400 3.400l.7.7M11.900 11.900l.7.7M3.400 12.600l.7-.7M11.900 4.100l.7-.7",
  moon: "M13 9.5A5.5 5.5 0 0 1 6.5 3 5.5 5.5 0 1 0 13 9.5z",
  sliders: "M2 5h6M12 5h2M2 11h2M8 11h6M10 3.5v3M6 9.5v3",
  gauge: "M2.5 12a6 6 0 1 1 11 0M8 10l3-3.5",
  down: "M3 6l5 5 5-5",
  chat: "M2.5 3h11v8H8l-3 2.5V11H2.5z",
};

export function Icon({ name }) {
  return html`<svg class="icon" viewBox="0 0 16 16" aria-hidden="true"><path d=${PATHS[name]} /></svg>`;
}
