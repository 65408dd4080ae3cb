// One signal in its row: a line where it is smooth or sparse, bars from lowest to highest where it is dense.

import { GUTTER, colour } from "./drawing.js";
import { S } from "./state.js";

const BARS_FROM = 4; // pixels of mean height from which columns are bars

/** A number in few letters. */
export const short = (v) => (v === 0 ? "0" : Math.abs(v) >= 1e7 || Math.abs(v) < 1e-3 ? v.toExponential(1) : String(+v.toPrecision(Math.abs(v) >= 1e4 ? 7 : 4)));

/** Draws a signal of an answer {t0, t1, count, data}; its window may differ from the one that is shown. */
export function paintTrace(c, shown, column, width, top, tall) {
  const n = shown.count, at = column * (4 + 2 * n), d = shown.data;
  let low = Infinity, high = -Infinity;
  for (let k = at + 4; k < at + 4 + 2 * n; k += 2) {
    if (d[k] < low && d[k] !== -Infinity) low = d[k];
    if (d[k + 1] > high && d[k + 1] !== Infinity) high = d[k + 1];
  }
  if (!(low <= high)) {
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
  c.strokeStyle = c.fillStyle = colour("signal");
  if (swing(d, at, n) * (tall - 8) > BARS_FROM * (high - low)) paintBars(c, d, at, n, x, y);
  else paintLine(c, d, at, n, x, y);
  c.restore();
  c.font = "9px system-ui, sans-serif";
  c.fillStyle = colour("dim");
  c.textAlign = "right";
  c.fillText(short(high), GUTTER - 3, top + 1);
  c.fillText(short(low), GUTTER - 3, top + tall - 11);
  c.textAlign = "left";
}

/** The mean distance from lowest to highest per column, in the signal's unit. */
function swing(d, at, n) {
  let sum = 0, count = 0;
  for (let k = at + 4; k < at + 4 + 2 * n; k += 2) {
    const w = d[k + 1] - d[k];
    if (w === w) { sum += w; count++; }
  }
  return count > 0.9 * n ? sum / count : 0;
}

/** A thin line through all columns and to the samples outside of the window: for what is smooth or sparse. */
function paintLine(c, d, at, n, x, y) {
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
}

/** A bar per column that touches the one before: for what is dense, where a line would be slow. */
function paintBars(c, d, at, n, x, y) {
  const wide = Math.max(1, x(1) - x(0)), half = wide / 2;
  let before = null;
  for (let k = 0; k < n; k++) {
    let low = y(d[at + 4 + 2 * k]), high = y(d[at + 5 + 2 * k]);
    if (low !== low) { before = null; continue; }
    const own = [low, high];
    if (before) { low = Math.max(low, before[1]); high = Math.min(high, before[0]); }
    c.fillRect(x(k) - half, high, wide, Math.max(1, low - high));
    before = own;
  }
}
