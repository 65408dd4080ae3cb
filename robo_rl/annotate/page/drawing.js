// What all canvases share: sharp pixels, the time axis, colours from the style sheet.

import { S } from "./state.js";

export const GUTTER = 150; // pixels at the left, for names

/** The canvas's context, in CSS pixels and cleared; null where it has no size. `like`: the canvas whose size it takes. */
export function begin(canvas, like = canvas) {
  const ratio = Math.min(window.devicePixelRatio || 1, 2);
  const width = like.clientWidth, height = like.clientHeight;
  if (!width || !height) return null;
  if (canvas.width !== Math.round(width * ratio) || canvas.height !== Math.round(height * ratio)) {
    canvas.width = Math.round(width * ratio);
    canvas.height = Math.round(height * ratio);
  }
  const c = canvas.getContext("2d");
  c.setTransform(ratio, 0, 0, ratio, 0, 0);
  c.clearRect(0, 0, width, height);
  return { c, width, height };
}

const known = {}, recoloured = [];
export const onRecolour = (act) => recoloured.push(act);
export function colour(name) {
  return (known[name] ??= getComputedStyle(document.documentElement).getPropertyValue(`--${name}`).trim());
}
matchMedia("(prefers-color-scheme: dark)").addEventListener("change", () => {
  for (const name of Object.keys(known)) delete known[name];
  for (const act of recoloured) act();
  redraw();
});

export const xOf = (t, width) => GUTTER + ((t - S.t0) / (S.t1 - S.t0)) * (width - GUTTER);
export const tOf = (x, width) => S.t0 + ((x - GUTTER) / (width - GUTTER)) * (S.t1 - S.t0);

/** Round instants for an axis of `width` pixels, with the digits that they need. */
export function ticks(width) {
  const least = ((S.t1 - S.t0) / Math.max(1, width - GUTTER)) * 90;
  let step = 10 ** Math.ceil(Math.log10(least));
  for (const part of [5, 2]) if (step / part >= least) { step /= part; break; }
  const found = [];
  for (let t = Math.ceil(S.t0 / step) * step; t <= S.t1; t += step) found.push(t);
  return { found, digits: Math.max(0, Math.ceil(9 - Math.log10(step) - 1e-9)) };
}

const drawn = [];
let due = false;
/** Has all canvases painted with the next picture of the screen. */
export function redraw() {
  if (due) return;
  due = true;
  requestAnimationFrame(() => {
    due = false;
    for (const act of drawn) act();
  });
}
export const onDraw = (act) => drawn.push(act);
new ResizeObserver(redraw).observe(document.documentElement);
