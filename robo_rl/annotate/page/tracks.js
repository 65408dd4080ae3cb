// Signals: one row each, drawn from the lowest and highest value in every column of pixels.

import { query } from "./api.js";
import { GUTTER, begin, colour, onDraw, redraw, ticks, xOf } from "./drawing.js";
import { S, on, seconds } from "./state.js";

const canvas = document.getElementById("tracks");
const AXIS = 18, NUMBERS = 36; // pixels for the axis and for the range of a row
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
    redraw();
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
      redraw();
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

function paint() {
  const frame = begin(canvas);
  if (!frame || !S.log) return;
  const { c, width, height } = frame;
  const rows = S.tracks.length;
  const tall = rows ? (height - AXIS) / rows : 0;
  paintAxis(c, width, height);
  c.textBaseline = "top";
  for (let i = 0; i < rows; i++) paintRow(c, width, i * tall, tall, i);
  if (!rows) {
    c.fillStyle = colour("dim");
    c.fillText("no signals are shown: press t to pick some", GUTTER + 20, 20);
  }
  paintCursor(c, width, height);
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
  if (tall > 38) c.fillText(valueText(signal), 6, top + 28);
  c.restore();
  c.strokeStyle = colour("line");
  c.beginPath(); c.moveTo(0, Math.round(top + tall) + 0.5); c.lineTo(width, Math.round(top + tall) + 0.5); c.stroke();
  const column = shown?.tracks.indexOf(S.tracks[i]) ?? -1;
  if (column >= 0) paintSignal(c, width, top, tall, column);
  if (tall <= 38 && values[signal.name] !== undefined) {
    c.fillStyle = colour("dim");
    c.textAlign = "right";
    c.fillText(valueText(signal), width - 4, top + 2);
    c.textAlign = "left";
  }
}

function paintSignal(c, width, top, tall, column) {
  const n = shown.count, at = column * (4 + 2 * n), d = shown.data;
  let low = Infinity, high = -Infinity;
  for (let k = at + 4; k < at + 4 + 2 * n; k += 2) {
    if (d[k] < low) low = d[k];
    if (d[k + 1] > high) high = d[k + 1];
  }
  if (low > high) {
    const seen = [d[at + 1], d[at + 3]].filter(Number.isFinite);
    if (!seen.length) return;
    low = Math.min(...seen); high = Math.max(...seen);
  }
  if (high - low < 1e-9 * Math.max(1, Math.abs(high))) { low -= 0.5; high += 0.5; }
  const y = (v) => top + tall - 4 - ((v - low) / (high - low)) * (tall - 8);
  const scale = (width - GUTTER) / (S.t1 - S.t0), step = (shown.t1 - shown.t0) / n;
  const x = (k) => GUTTER + (shown.t0 + (k + 0.5) * step - S.t0) * scale;
  c.save();
  c.beginPath(); c.rect(GUTTER, top, width - GUTTER, tall); c.clip();
  c.strokeStyle = colour("signal");
  c.lineWidth = 1;
  c.beginPath();
  let begun = false;
  const to = (px, v) => { if (begun) c.lineTo(px, y(v)); else { c.moveTo(px, y(v)); begun = true; } };
  if (Number.isFinite(d[at])) to(x(d[at] * n - 0.5), d[at + 1]);
  for (let k = 0; k < n; k++) {
    const a = d[at + 4 + 2 * k], b = d[at + 5 + 2 * k];
    if (a !== a) continue;
    to(x(k), a);
    if (b !== a) c.lineTo(x(k), y(b));
  }
  if (Number.isFinite(d[at + 2])) to(x(d[at + 2] * n - 0.5), d[at + 3]);
  c.stroke();
  c.restore();
  c.font = "9px system-ui, sans-serif";
  c.fillStyle = colour("dim");
  c.textAlign = "right";
  c.fillText(short(high), GUTTER - 3, top + 1);
  c.fillText(short(low), GUTTER - 3, top + tall - 11);
  c.textAlign = "left";
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
const short = (v) => (v === 0 ? "0" : Math.abs(v) >= 1e7 || Math.abs(v) < 1e-3 ? v.toExponential(1) : String(+v.toPrecision(Math.abs(v) >= 1e4 ? 7 : 4)));

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
on("cursor open", redraw);
onDraw(paint);
new ResizeObserver(fetchTracks).observe(canvas);
