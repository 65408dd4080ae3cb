// Marks: a tier per kind below the signals, and the whole log in one line above them.

import { GUTTER, begin, colour, onDraw, redraw, tOf, xOf } from "./drawing.js";
import { S, markOf, on, seconds, seek, select, view } from "./state.js";

const canvas = document.getElementById("tiers");
const overview = document.getElementById("overview");
const ROW = 19;
export const SIGNS = { success: "✓", failure: "✗", aborted: "–" };
let dragged = null; // {id, edge, t}

export function textOf(m) {
  if (m.kind === "outcome") return `${SIGNS[m.label]} ${m.label}`;
  if (m.kind === "reward") return `${m.value.reward}${m.label ? " " + m.label : ""}`;
  if (m.kind === "sysid") return `${m.label} ${m.value.split ?? "train"}`;
  return m.label || m.value.reason || m.kind;
}

function lanes(kind) {
  return [...new Set(S.marks.filter((m) => m.kind === kind && m.status !== "rejected").map((m) => m.who))].sort();
}

function paint() {
  if (!S.log) return;
  const kinds = Object.keys(S.log.kinds);
  canvas.style.height = `${kinds.length * ROW + 2}px`;
  const frame = begin(canvas);
  if (!frame) return;
  const { c, width, height } = frame;
  c.textBaseline = "middle";
  kinds.forEach((kind, i) => {
    const top = i * ROW + 1;
    c.fillStyle = colour(kind);
    c.fillRect(0, top + 2, 5, ROW - 4);
    c.fillStyle = colour("text");
    c.font = "11px system-ui, sans-serif";
    const count = S.marks.filter((m) => m.kind === kind && m.status === "confirmed").length;
    c.fillText(kind, 10, top + ROW / 2);
    if (count) { c.textAlign = "right"; c.fillStyle = colour("dim"); c.fillText(count, GUTTER - 6, top + ROW / 2); c.textAlign = "left"; }
    c.strokeStyle = colour("line");
    c.globalAlpha = 0.5;
    c.beginPath(); c.moveTo(0, top + ROW - 0.5); c.lineTo(width, top + ROW - 0.5); c.stroke();
    c.globalAlpha = 1;
    c.save();
    c.beginPath(); c.rect(GUTTER, top, width - GUTTER, ROW); c.clip();
    const people = lanes(kind), tall = (ROW - 2) / Math.max(1, people.length);
    people.forEach((who, lane) => {
      const own = S.marks.filter((m) => m.kind === kind && m.status !== "rejected" && m.who === who);
      own.forEach((m, k) => paintMark(c, width, m, top + lane * tall, tall, own[k + 1]));
    });
    if (S.open[kind]) paintOpen(c, width, kind, top);
    c.restore();
  });
  const x = Math.round(xOf(S.cursor, width)) + 0.5;
  if (x >= GUTTER) { c.strokeStyle = colour("cursor"); c.beginPath(); c.moveTo(x, 0); c.lineTo(x, height); c.stroke(); }
}

/** `next`: the mark behind it in the same lane, before which its text ends. */
function paintMark(c, width, m, top, tall, next) {
  const t0 = dragged?.id === m.id && dragged.edge === "t0" ? dragged.t : m.t0;
  const t1 = dragged?.id === m.id && dragged.edge === "t1" ? dragged.t : m.t1;
  const a = xOf(t0, width), b = xOf(t1, width);
  if (b < GUTTER - 8 || a > width + 8) return;
  const tone = colour(m.kind), chosen = m.id === S.selected, draft = m.status === "draft";
  c.strokeStyle = c.fillStyle = tone;
  c.lineWidth = chosen ? 2.5 : 1;
  c.setLineDash(draft ? [3, 2] : []);
  if (m.t0 === m.t1) {
    const y = top + tall / 2, r = Math.min(6, tall / 2);
    c.beginPath(); c.moveTo(a, y - r); c.lineTo(a + r, y); c.lineTo(a, y + r); c.lineTo(a - r, y); c.closePath();
    if (!draft) c.fill();
    if (chosen) c.strokeStyle = colour("text");
    c.stroke();
  } else {
    c.globalAlpha = draft ? 0.12 : 0.32;
    c.fillRect(a, top, Math.max(2, b - a), tall - 1);
    c.globalAlpha = 1;
    if (chosen) c.strokeStyle = colour("text");
    c.strokeRect(a + 0.5, top + 0.5, Math.max(2, b - a) - 1, tall - 2);
    c.fillRect(a, top, 3, tall - 1);
  }
  c.setLineDash([]);
  c.lineWidth = 1;
  if (tall < 8) return;
  c.save();
  const room = m.t0 < m.t1 ? b - a - 2 : next ? xOf(next.t0, width) - a - 7 : 200;
  c.beginPath(); c.rect(a, top, Math.max(0, room), tall); c.clip();
  c.fillStyle = colour("text");
  c.font = `${tall < 12 ? 9 : 11}px system-ui, sans-serif`;
  const flag = S.conflicts.has(m.id) ? "! " : draft ? "? " : "";
  c.fillText(flag + textOf(m), Math.max(a, GUTTER) + (m.t0 === m.t1 ? 9 : 6), top + tall / 2 + 0.5);
  c.restore();
}

function paintOpen(c, width, kind, top) {
  const o = S.open[kind], a = xOf(Math.min(o.t0, S.cursor), width), b = xOf(Math.max(o.t0, S.cursor), width);
  c.fillStyle = colour(kind);
  c.globalAlpha = 0.25;
  c.fillRect(a, top + 1, Math.max(2, b - a), ROW - 3);
  c.globalAlpha = 1;
  c.fillRect(xOf(o.t0, width) - 1, top, 3, ROW - 1);
  c.fillStyle = colour("text");
  c.font = "600 11px system-ui, sans-serif";
  c.fillText(`${o.label ? o.label + " " : ""}${seconds(Math.abs(S.cursor - o.t0))} s …`, a + 6, top + ROW / 2);
}

function paintOverview() {
  const frame = begin(overview);
  if (!frame || !S.log) return;
  const { c, width, height } = frame, whole = S.log.duration_ns;
  const x = (t) => GUTTER + (t / whole) * (width - GUTTER);
  for (const m of S.marks) {
    if (m.status === "rejected") continue;
    const row = Object.keys(S.log.kinds).indexOf(m.kind);
    c.fillStyle = colour(m.kind);
    c.fillRect(x(m.t0), 1 + row * 2.2, Math.max(1.5, x(m.t1) - x(m.t0)), 2);
  }
  c.fillStyle = colour("accent");
  c.globalAlpha = 0.18;
  c.fillRect(x(S.t0), 0, Math.max(3, x(S.t1) - x(S.t0)), height);
  c.globalAlpha = 1;
  c.fillStyle = colour("cursor");
  c.fillRect(x(S.cursor), 0, 1.5, height);
  c.fillStyle = colour("dim");
  c.font = "10px system-ui, sans-serif";
  c.textBaseline = "middle";
  const { done, total } = S.progress;
  c.fillText(done < total ? `reading ${Math.round((100 * done) / total)} %` : `${seconds(whole, 1)} s in all`, 6, height / 2);
}

/** The mark below a point, the selected one before the others. */
function markAt(x, y, width) {
  const kind = Object.keys(S.log.kinds)[Math.floor(y / ROW)];
  const hit = S.marks.filter((m) => m.kind === kind && m.status !== "rejected" &&
    x >= xOf(m.t0, width) - 6 && x <= xOf(m.t1, width) + 6);
  return hit.find((m) => m.id === S.selected) ?? hit.at(-1);
}

/** Listens to the pointer; `change(id, changes)` saves a moved edge. */
export function usePointer(change) {
  canvas.addEventListener("pointerdown", (e) => {
    const width = canvas.clientWidth, m = markAt(e.offsetX, e.offsetY, width);
    if (!m) { seek(tOf(e.offsetX, width), false); return; }
    const edge = ["t0", "t1"].find((k) => Math.abs(xOf(m[k], width) - e.offsetX) < 5);
    if (m.id === S.selected && edge && m.t0 !== m.t1) {
      dragged = { id: m.id, edge, t: m[edge] };
      canvas.setPointerCapture(e.pointerId);
    } else select(m.id, false);
  });
  canvas.addEventListener("pointermove", (e) => {
    if (!dragged) return;
    dragged.t = Math.round(tOf(e.offsetX, canvas.clientWidth));
    redraw();
  });
  canvas.addEventListener("pointerup", () => {
    if (!dragged) return;
    const { id, edge, t } = dragged;
    dragged = null;
    if (markOf(id)?.[edge] !== t) change(id, { [edge]: t });
    redraw();
  });
  const jump = (e) => {
    const t = ((e.offsetX - GUTTER) / (overview.clientWidth - GUTTER)) * S.log.duration_ns;
    const span = S.t1 - S.t0;
    view(t - span / 2, t + span / 2);
    seek(t);
  };
  overview.addEventListener("pointerdown", (e) => { overview.setPointerCapture(e.pointerId); jump(e); });
  overview.addEventListener("pointermove", (e) => { if (e.buttons) jump(e); });
}

on("marks view cursor open", redraw);
onDraw(paint);
onDraw(paintOverview);
