// Which key does what: shown, and changed by the user.

import { inTurn } from "./marking.js";

const STORED = "robo-rl annotate keys";
export const ACTIONS = new Map(); // name -> {what, run, keys, group, shown}
let bound = {};

/** Declares an action with its usual keys; `shown` puts it on the bar below the page. Marking goes in turn. */
export function action(name, keys, what, act, { group = "mark", shown = "" } = {}) {
  const run = group === "mark" ? () => inTurn(act) : act;
  ACTIONS.set(name, { what, run, usual: keys, keys, shown });
}

/** How a key is written: `Shift+ArrowLeft`, `e`, `?`. */
export function spelled(e) {
  let key = e.key === " " ? "Space" : e.key;
  const letter = key.length === 1 && key.toLowerCase() !== key.toUpperCase();
  if (letter) key = key.toLowerCase();
  const shift = e.shiftKey && (letter || key.length > 1) ? "Shift+" : "";
  return (e.ctrlKey || e.metaKey ? "Ctrl+" : "") + (e.altKey ? "Alt+" : "") + shift + key;
}

const SHORT = { ArrowLeft: "←", ArrowRight: "→", ArrowUp: "↑", ArrowDown: "↓", "Shift+": "⇧", Escape: "Esc", Delete: "Del" };
export const shortly = (key) => Object.entries(SHORT).reduce((text, [long, short]) => text.replace(long, short), key);

export function load() {
  let stored = {};
  try {
    stored = JSON.parse(localStorage.getItem(STORED) ?? "{}");
  } catch { /* as if nothing had been changed */ }
  for (const [name, a] of ACTIONS) a.keys = stored[name] ?? a.usual;
  bind();
}

function bind() {
  bound = {};
  for (const [name, a] of ACTIONS) for (const key of a.keys) bound[key] = name;
}

/** Gives a key to an action; whoever had it loses it. Returns who that was. */
export function remap(name, key) {
  const loser = bound[key] !== name ? bound[key] : undefined;
  if (loser) ACTIONS.get(loser).keys = ACTIONS.get(loser).keys.filter((k) => k !== key);
  ACTIONS.get(name).keys = [key];
  keep();
  return loser;
}

export function reset(name = null) {
  for (const [other, a] of ACTIONS) if (!name || other === name) a.keys = a.usual;
  keep();
}

function keep() {
  const changed = [...ACTIONS].filter(([, a]) => a.keys.join() !== a.usual.join());
  localStorage.setItem(STORED, JSON.stringify(Object.fromEntries(changed.map(([name, a]) => [name, a.keys]))));
  bind();
}

export const actionOf = (e) => ACTIONS.get(bound[spelled(e)]);
