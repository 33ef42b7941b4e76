// Text of a message: markdown in blocks, of which finished ones are never drawn again.
import { html, useLayoutEffect, useRef } from "./lib.js";
import { Blocks, draw } from "./markdown.js";
import { onCopyClick } from "./code.js";

function Block({ raw, isOpen }) {
  const box = useRef(null);
  useLayoutEffect(() => {
    box.current.replaceChildren(draw(raw, isOpen));
  }, [raw, isOpen]);
  return html`<div class="block" ref=${box}></div>`;
}

/** `isOpen`: more text may come. */
export function Prose({ text, isOpen = false }) {
  const blocks = useRef(null);
  blocks.current ??= new Blocks();
  const raws = blocks.current.of(text);
  return html`<div class="prose" dir="auto" onClick=${onCopyClick}>
    ${raws.map((raw, i) => html`<${Block} key=${i} raw=${raw} isOpen=${isOpen && i === raws.length - 1} />`)}
  </div>`;
}
