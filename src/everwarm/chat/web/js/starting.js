// The page while the model loads: how far it is. Once it is ready, the page that was asked for.
import { bytes } from "./format.js";

const EVERY_MS = 500;
const what = document.getElementById("what");
const loaded = document.getElementById("loaded");
const sizes = document.getElementById("bytes");

function show({ status, why, loaded_bytes: done, total_bytes: total }) {
  what.textContent = why ?? "The model is being loaded.";
  loaded.hidden = status === "failed";
  if (total) {
    loaded.max = total;
    loaded.value = done;
  } else {
    loaded.removeAttribute("value");
  }
  sizes.textContent = total ? `${bytes(done)} of ${bytes(total)}` : "";
}

async function look() {
  try {
    const health = await (await fetch("/health")).json();
    if (health.status === "ok" || health.status === "restarting") {
      location.reload();
      return;
    }
    show(health);
  } catch {
    what.textContent = "The server cannot be reached. Trying again.";
  }
  setTimeout(look, EVERY_MS);
}

look();
