// Signals: one row each, drawn from the lowest and highest value in every column of pixels.

import { query } from "./api.js";
import { GUTTER, begin, colour, onDraw, onRecolour, redraw, ticks, xOf } from "./drawing.js";
import { S, on, seconds } from "./state.js";
import { paintTrace, short } from "./trace.js";

const canvas = document.getElementById("tracks");
const AXIS = 18, NUMBERS = 36, TALLEST = 160; // pixels: the axis, a row's range, a row
let shown = null; // {t0, t1, tracks, count, data}: the newest answer
let busy = false, stale = false;
let values = {};
/** How long each request took from the change of the view to the painted picture, ms; for measurements. */
export const latencies = [];
let changed = 0;

export function fetchTracks() {
  changed ||= performance.now();
  if (busy) {
    stale = true;
    return;
  }
  const count = Math.max(1, Math.floor(canvas.clientWidth - GUTTER));
  if (!S.log || !S.tracks.length || count < 2) {
    shown = null;
    repaint();
    return;
  }
  const wanted = { t0: S.t0, t1: S.t1, tracks: [...S.tracks], count };
  const asked = changed;
  changed = 0;
  busy = true;
  stale = false;
  query("/api/tracks", { s: wanted.tracks.join(), t0: wanted.t0, t1: wanted.t1, n: count })
    .then(async (answer) => {
      wanted.ready = answer.headers.get("X-Ready") === "1";
      wanted.data = new Float32Array(await answer.arrayBuffer());
      shown = wanted;
      repaint();
      requestAnimationFrame(() => latencies.push(performance.now() - asked));
    })
    .catch(() => {})
    .finally(() => {
      busy = false;
      if (stale) fetchTracks();
    });
}

export const isReady = () => Boolean(shown?.ready) && !busy;
export const hasData = () => Boolean(shown?.data.some(Number.isFinite));

// The signals are painted aside, and anew only when they change: the cursor moves more often.
const layer = document.createElement("canvas");
let dirty = true;
function repaint() {
  dirty = true;
  redraw();
}

function paint() {
  const frame = begin(canvas);
  if (!frame || !S.log) return;
  if (dirty) paintLayer();
  const { c, width, height } = frame;
  c.drawImage(layer, 0, 0, width, height);
  const tall = rowHeight(height);
  c.font = "10px system-ui, sans-serif";
  c.fillStyle = colour("dim");
  c.textBaseline = "top";
  S.tracks.forEach((number, i) => {
    const text = valueText(S.log.signals[number]);
    if (tall > 38) c.fillText(text, 6, i * tall + 28);
    else { c.textAlign = "right"; c.fillText(text, width - 4, i * tall + 2); c.textAlign = "left"; }
  });
  paintCursor(c, width, height);
}

const rowHeight = (height) => Math.min(TALLEST, (height - AXIS) / Math.max(1, S.tracks.length));

function paintLayer() {
  const frame = begin(layer, canvas);
  if (!frame) return;
  dirty = false;
  const { c, width, height } = frame, tall = rowHeight(height);
  paintAxis(c, width, height);
  c.textBaseline = "top";
  S.tracks.forEach((_, i) => paintRow(c, width, i * tall, tall, i));
  if (!S.tracks.length) {
    c.fillStyle = colour("dim");
    c.fillText("no signals are shown: press t to pick some", GUTTER + 20, 20);
  }
}

function paintAxis(c, width, height) {
  const { found, digits } = ticks(width);
  c.font = "11px system-ui, sans-serif";
  c.textBaseline = "bottom";
  c.textAlign = "center";
  for (const t of found) {
    const x = Math.round(xOf(t, width)) + 0.5;
    if (x < GUTTER || x > width - 16) continue;
    c.strokeStyle = colour("line");
    c.globalAlpha = 0.6;
    c.beginPath(); c.moveTo(x, 0); c.lineTo(x, height - AXIS); c.stroke();
    c.globalAlpha = 1;
    c.fillStyle = colour("dim");
    c.fillText(`${seconds(t, digits)}${t < 60e9 ? " s" : ""}`, x, height - 2);
  }
  c.textAlign = "left";
}

function paintRow(c, width, top, tall, i) {
  const signal = S.log.signals[S.tracks[i]];
  c.fillStyle = colour("text");
  c.font = "11px system-ui, sans-serif";
  c.save();
  c.beginPath(); c.rect(0, top, GUTTER - NUMBERS, tall); c.clip();
  c.fillText(tail(c, signal.label, GUTTER - NUMBERS - 8), 6, top + 2);
  c.font = "10px system-ui, sans-serif";
  c.fillStyle = colour("dim");
  if (tall > 26) c.fillText(tail(c, signal.topic, GUTTER - NUMBERS - 8), 6, top + 16);
  c.restore();
  c.strokeStyle = colour("line");
  c.beginPath(); c.moveTo(0, Math.round(top + tall) + 0.5); c.lineTo(width, Math.round(top + tall) + 0.5); c.stroke();
  const column = shown?.tracks.indexOf(S.tracks[i]) ?? -1;
  if (column >= 0) paintTrace(c, shown, column, width, top, tall);
}

function paintCursor(c, width, height) {
  for (const [t, name] of [[S.in, "["], [S.out, "]"]]) {
    if (t === null) continue;
    const x = Math.round(xOf(t, width)) + 0.5;
    c.strokeStyle = c.fillStyle = colour("accent");
    c.setLineDash([4, 3]);
    c.beginPath(); c.moveTo(x, 0); c.lineTo(x, height); c.stroke();
    c.setLineDash([]);
    c.font = "700 13px system-ui"; c.fillText(name, x + 2, 2);
  }
  const x = Math.round(xOf(S.cursor, width)) + 0.5;
  if (x < GUTTER || x > width) return;
  c.strokeStyle = colour("cursor");
  c.beginPath(); c.moveTo(x, 0); c.lineTo(x, height); c.stroke();
}

const valueText = (signal) => {
  const v = values[signal.name];
  return v === undefined || v === null ? "" : `${short(v)} ${signal.unit === "1" ? "" : signal.unit}`;
};

/** The end of a text that fits a width: the end of a field's name tells more than its beginning. */
function tail(c, text, width) {
  if (c.measureText(text).width <= width) return text;
  let from = 1;
  while (from < text.length && c.measureText("…" + text.slice(from)).width > width) from++;
  return "…" + text.slice(from);
}

let asking = false, again = false;
export function fetchValues() {
  if (asking) { again = true; return; }
  if (!S.tracks.length) return;
  asking = true;
  const tracks = [...S.tracks];
  query("/api/values", { s: tracks.join(), t: S.cursor })
    .then((answer) => answer.json())
    .then((found) => {
      values = Object.fromEntries(tracks.map((s, i) => [S.log.signals[s].name, found[i]]));
      redraw();
    })
    .catch(() => {})
    .finally(() => { asking = false; if (again) { again = false; fetchValues(); } });
}

on("view tracks", fetchTracks);
on("cursor tracks", fetchValues);
on("view tracks log", repaint);
on("cursor open", redraw);
onDraw(paint);
onRecolour(repaint);
new ResizeObserver(() => { repaint(); fetchTracks(); }).observe(canvas);
