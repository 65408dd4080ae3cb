// The overlay with all keys, where they are also changed.

import { ACTIONS, remap, reset, shortly, spelled } from "./keys.js";

const box = document.getElementById("help");
let changed = () => {};
let waiting = null; // name of the action that waits for its new key

export const isOpen = () => !box.hidden;
export function whenChanged(act) { changed = act; }

export function toggle(open = box.hidden) {
  waiting = null;
  box.hidden = !open;
  if (open) fill();
  else document.activeElement?.blur?.();
}

function fill(message = "") {
  const focused = document.activeElement?.dataset?.action;
  const head = document.createElement("h2");
  head.textContent = "Keys";
  const hint = document.createElement("small");
  hint.textContent = message || "↑ ↓ choose an action, Enter changes its key, Backspace restores it, Escape closes";
  const list = document.createElement("div");
  list.className = "columns";
  for (const [name, a] of ACTIONS) {
    const b = document.createElement("button");
    b.dataset.action = name;
    const what = document.createElement("span");
    what.className = "what";
    what.textContent = a.what;
    const keys = document.createElement("span");
    if (name === waiting) {
      b.classList.add("waiting");
      keys.textContent = "press a key";
    } else for (const key of a.keys) {
      const k = document.createElement("kbd");
      k.textContent = shortly(key);
      keys.append(k, " ");
    }
    b.append(what, keys);
    b.addEventListener("click", () => { waiting = name; fill(); });
    list.append(b);
  }
  box.replaceChildren(head, hint, list);
  (list.querySelector(`[data-action="${waiting ?? focused}"]`) ?? list.firstChild).focus();
}

/** Keys while the overlay is open. */
export function onKey(e) {
  e.preventDefault();
  if (waiting) {
    if (["Shift", "Control", "Alt", "Meta"].includes(e.key)) return;
    const name = waiting, key = spelled(e);
    waiting = null;
    if (key === "Escape") return fill();
    const loser = remap(name, key);
    changed();
    return fill(loser ? `${key} now means: ${ACTIONS.get(name).what}; "${ACTIONS.get(loser).what}" has lost it` : "");
  }
  const all = [...box.querySelectorAll("button")], at = all.indexOf(document.activeElement);
  if (e.key === "Escape" || e.key === "?") toggle(false);
  else if (e.key === "ArrowDown" || e.key === "ArrowUp") {
    all[(at + (e.key === "ArrowDown" ? 1 : -1) + all.length) % all.length].focus();
  } else if (e.key === "Enter") { waiting = all[at]?.dataset.action ?? null; fill(); }
  else if (e.key === "Backspace") { reset(all[at]?.dataset.action); changed(); fill(); }
}
