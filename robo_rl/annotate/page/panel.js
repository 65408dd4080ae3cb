// The list of marks with its search, the header, and the bar of keys.

import { redraw } from "./drawing.js";
import { ACTIONS, shortly } from "./keys.js";
import { S, emit, on, seconds, select } from "./state.js";
import { textOf } from "./tiers.js";

const $ = (id) => document.getElementById(id);
const MOST_ROWS = 400;

export function found() {
  const words = S.filter.toLowerCase().split(/\s+/).filter(Boolean);
  return S.marks.filter((m) => {
    const text = `${m.kind} ${textOf(m)} ${JSON.stringify(m.value)} ${m.who} ${m.status}`.toLowerCase();
    return words.every((w) => text.includes(w)) && (m.status !== "rejected" || words.includes("rejected"));
  });
}

export function step(direction) {
  const list = found();
  if (!list.length) return;
  const at = list.findIndex((m) => m.id === S.selected);
  const next = at >= 0 ? at + direction : list.findIndex((m) => m.t0 >= S.cursor);
  select(list[Math.min(list.length - 1, Math.max(0, next))].id);
}

export function usePanel() {
  const search = $("search");
  search.addEventListener("input", () => { S.filter = search.value; emit("marks"); });
  search.addEventListener("keydown", (e) => {
    e.stopPropagation();
    if (e.key === "Enter") step(1);
    else if (e.key === "Escape") { search.value = S.filter = ""; search.blur(); emit("marks"); }
    else return;
    e.preventDefault();
  });
  const author = $("author");
  author.value = S.author;
  author.addEventListener("keydown", (e) => { e.stopPropagation(); if (e.key === "Enter") author.blur(); });
  author.addEventListener("change", () => {
    S.author = author.value.trim();
    sessionStorage.setItem("author", S.author);
  });
  on("marks", paintList);
  on("cursor open marks", paintHead);
  paintList();
  paintHead();
  paintKeys();
}

function paintList() {
  const list = found();
  $("marks").replaceChildren(...list.slice(0, MOST_ROWS).map(row));
  $("marks").querySelector(".selected")?.scrollIntoView({ block: "nearest" });
  const drafts = S.marks.filter((m) => m.status === "draft").length;
  $("counts").textContent = `${list.length} ${list.length === 1 ? "mark" : "marks"}` + (S.filter ? " found" : "") +
    (drafts ? ` · ${drafts} drafts` : "") + (S.conflicts.size ? ` · ${S.conflicts.size} in conflict` : "");
}

function row(m) {
  const li = document.createElement("li");
  li.dataset.id = m.id;
  li.className = `${m.status} ${m.id === S.selected ? "selected" : ""}`;
  li.style.setProperty("--c", `var(--${m.kind})`);
  const text = textOf(m), what = m.kind === "outcome" || text === m.kind ? text : `${m.kind} ${text}`;
  const cells = [["t", seconds(m.t0, 2)], ["what", what]];
  if (m.t1 > m.t0 && m.kind !== "outcome") cells.push(["t", `${seconds(m.t1 - m.t0, 2)} s`]);
  if (S.conflicts.has(m.id)) cells.push(["flag", "conflict"]);
  else if (m.status === "draft") cells.push(["flag", "draft"]);
  cells.push(["who", m.who]);
  li.append(...cells.map(([name, text]) => Object.assign(document.createElement("span"), { className: name, textContent: text })));
  const reason = m.value.reason ? `: ${m.value.reason}` : "";
  li.title = `${what}${reason}, by ${m.who}${m.model ? ` (${m.model})` : ""}, at ${seconds(m.t0, 6)} s`;
  li.addEventListener("click", () => select(m.id));
  return li;
}

function paintHead() {
  $("clock").textContent = `${seconds(S.cursor)} s`;
  const open = Object.entries(S.open).map(([kind, o]) => `● ${o.label || kind} ${seconds(Math.abs(S.cursor - o.t0), 2)} s`);
  if (S.in !== null) {
    const to = S.out ?? S.cursor;
    open.push(`[ ${seconds(Math.abs(to - S.in), 2)} s ${S.out !== null ? "]" : "…"}`);
  }
  $("live").textContent = open.join("   ");
  $("rate").textContent = S.playing ? `${S.playing > 0 ? "▶" : "◀"} ${Math.abs(S.playing)}×` : `paused, ${S.speed}×`;
  $("snap").textContent = `snap ${S.snap}`;
  for (const b of $("keys").children) b.classList.toggle("on", Boolean(S.open[b.dataset.action]));
}

export function paintKeys() {
  $("keys").replaceChildren(...[...ACTIONS].filter(([, a]) => a.shown).map(([name, a]) => {
    const b = document.createElement("button");
    b.dataset.action = name;
    b.title = a.what;
    b.tabIndex = -1;
    b.append(...a.keys.slice(0, 1).map((key) => Object.assign(document.createElement("kbd"), { textContent: shortly(key) })), ` ${a.shown}`);
    b.addEventListener("click", () => a.run());
    return b;
  }));
  redraw();
}
