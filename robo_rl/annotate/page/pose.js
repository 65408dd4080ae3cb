// The robot's pose at the cursor: a body with its path through the window, or dials of its joints.

import { json, query } from "./api.js";
import { begin, colour, onDraw, redraw } from "./drawing.js";
import { S, clamp, on } from "./state.js";

const figure = document.getElementById("pose");
const canvas = figure.querySelector("canvas");
const caption = figure.querySelector("figcaption");
let chosen = 0; // bodies first, then topics with joints
let path = null, dials = null;
let azimuth = -0.9, elevation = 0.5;
let busy = false, stale = false, settle = 0;

export function usePose() {
  const names = [...S.log.bodies, ...S.log.joints.map((j) => `${j.topic} joints`)];
  if (!names.length) return;
  figure.hidden = false;
  const choice = document.createElement("select");
  choice.setAttribute("aria-label", "body that is shown");
  choice.append(...names.map((name, i) => new Option(name, i)));
  choice.addEventListener("change", () => {
    chosen = Number(choice.value);
    path = dials = null;
    fetchPose();
    choice.blur();
  });
  caption.append(choice);
  canvas.addEventListener("pointerdown", (e) => canvas.setPointerCapture(e.pointerId));
  canvas.addEventListener("pointermove", (e) => {
    if (!e.buttons) return;
    azimuth -= e.movementX * 0.01;
    elevation = clamp(elevation + e.movementY * 0.01, -0.1, Math.PI / 2);
    redraw();
  });
  on("view", () => { clearTimeout(settle); settle = setTimeout(fetchPose, 120); });
  on("cursor", () => (isJoints() ? fetchPose() : redraw()));
  onDraw(paint);
  fetchPose();
}

export const refreshPose = () => { if (!figure.hidden && !path?.rows) fetchPose(); };
const isJoints = () => chosen >= S.log.bodies.length;

async function fetchPose() {
  if (busy) { stale = true; return; }
  busy = true;
  stale = false;
  try {
    if (isJoints()) {
      const joints = S.log.joints[chosen - S.log.bodies.length];
      const found = await json("/api/values", { s: joints.signals.join(), t: S.cursor });
      dials = joints.signals.map((s, i) => ({ label: S.log.signals[s].label, value: found[i] }));
      if (found.every((v) => v === null)) await query("/api/tracks", { s: joints.signals.join(), t0: 0, t1: 1, n: 1 });
    } else {
      const [t0, t1] = [S.t0, S.t1];
      const data = new Float32Array(await (await query("/api/path", { body: chosen, t0, t1 })).arrayBuffer());
      path = { t0, t1, data, rows: data.length / 8 };
    }
  } catch { /* the next change asks again */ }
  busy = false;
  redraw();
  if (stale) fetchPose();
}

function paint() {
  const frame = begin(canvas);
  if (!frame) return;
  const { c, width, height } = frame;
  c.font = "11px system-ui, sans-serif";
  if (isJoints()) paintDials(c, width, height);
  else if (!path?.rows) {
    c.fillStyle = colour("dim");
    c.fillText("reading the poses …", 10, 20);
  } else paintBody(c, width, height);
}

function paintBody(c, width, height) {
  const { data, rows } = path;
  const row = (i) => data.subarray(8 * i, 8 * i + 8);
  const at = (S.cursor - path.t0) / (path.t1 - path.t0);
  let now = 0;
  for (let a = 0, b = rows - 1; a <= b;) {
    const mid = (a + b) >> 1;
    if (data[8 * mid] <= at) { now = mid; a = mid + 1; } else b = mid - 1;
  }
  const low = [Infinity, Infinity, Infinity], high = [-Infinity, -Infinity, -Infinity];
  for (let i = 0; i < rows; i++) for (let k = 0; k < 3; k++) {
    const v = data[8 * i + 1 + k];
    if (v < low[k]) low[k] = v;
    if (v > high[k]) high[k] = v;
  }
  if (!Number.isFinite(low[0] + high[0])) return;
  const middle = low.map((v, k) => (v + high[k]) / 2);
  const size = Math.max(...low.map((v, k) => high[k] - v), 0.02);
  const scale = (Math.min(width, height) * 0.58) / size;
  const [ca, sa, ce, se] = [Math.cos(azimuth), Math.sin(azimuth), Math.cos(elevation), Math.sin(elevation)];
  const project = ([x, y, z]) => {
    const [px, py, pz] = [x - middle[0], y - middle[1], z - middle[2]];
    const side = ca * px + sa * py, depth = -sa * px + ca * py;
    return [width / 2 + side * scale, height / 2 - (pz * ce + depth * se) * scale];
  };
  const floor = low[2] - 0.05 * size;
  paintFloor(c, project, middle, size, floor);
  for (const [from, to, alpha] of [[now, rows - 1, 0.3], [0, now, 1]]) {
    c.globalAlpha = alpha;
    c.strokeStyle = colour("signal");
    c.beginPath();
    for (let i = from; i <= to; i++) {
      const [x, y] = project(row(i).subarray(1, 4));
      if (i === from) c.moveTo(x, y); else c.lineTo(x, y);
    }
    c.stroke();
  }
  const here = row(now), p = here.subarray(1, 4);
  c.globalAlpha = 0.4;
  c.strokeStyle = colour("dim");
  line(c, project(p), project([p[0], p[1], floor]));
  c.globalAlpha = 1;
  paintAxes(c, project, p, turn(here.subarray(4, 8)), size * 0.2);
  c.fillStyle = colour("text");
  const where = S.log.bodies.length && size > 0.02 ? `${[...p].map((v) => v.toFixed(3)).join("  ")} m` : "orientation";
  c.fillText(where, 8, height - 8);
}

function paintFloor(c, project, middle, size, floor) {
  c.strokeStyle = colour("line");
  c.beginPath();
  for (let k = -2; k <= 2; k++) {
    const d = (k / 4) * size, h = size / 2;
    for (const [a, b] of [[[d, -h], [d, h]], [[-h, d], [h, d]]]) {
      c.moveTo(...project([middle[0] + a[0], middle[1] + a[1], floor]));
      c.lineTo(...project([middle[0] + b[0], middle[1] + b[1], floor]));
    }
  }
  c.stroke();
}

function paintAxes(c, project, p, axes, length) {
  const tones = [colour("intervention"), colour("outcome"), colour("episode")];
  const from = project(p);
  axes.forEach((axis, k) => {
    const to = project([p[0] + axis[0] * length, p[1] + axis[1] * length, p[2] + axis[2] * length]);
    c.strokeStyle = c.fillStyle = tones[k];
    c.lineWidth = 2.5;
    line(c, from, to);
    c.fillText("xyz"[k], to[0] + 3, to[1]);
  });
  c.lineWidth = 1;
}

function line(c, a, b) {
  c.beginPath(); c.moveTo(...a); c.lineTo(...b); c.stroke();
}

/** The body's three axes in the world, from a quaternion w x y z. */
export function turn([w, x, y, z]) {
  const n = Math.hypot(w, x, y, z) || 1;
  [w, x, y, z] = [w / n, x / n, y / n, z / n];
  return [
    [1 - 2 * (y * y + z * z), 2 * (x * y + w * z), 2 * (x * z - w * y)],
    [2 * (x * y - w * z), 1 - 2 * (x * x + z * z), 2 * (y * z + w * x)],
    [2 * (x * z + w * y), 2 * (y * z - w * x), 1 - 2 * (x * x + y * y)],
  ];
}

function paintDials(c, width, height) {
  if (!dials) return;
  const columns = Math.min(6, dials.length), rows = Math.ceil(dials.length / columns);
  const w = width / columns, h = height / rows, r = Math.min(w, h - 24) * 0.4;
  c.textAlign = "center";
  dials.forEach(({ label, value }, i) => {
    const x = ((i % columns) + 0.5) * w, y = (Math.floor(i / columns) + 0.5) * h - 6;
    c.strokeStyle = colour("line");
    c.beginPath(); c.arc(x, y, r, 0, 2 * Math.PI); c.stroke();
    if (value !== null) {
      c.strokeStyle = colour("intervention");
      c.lineWidth = 2.5;
      line(c, [x, y], [x + r * Math.sin(value), y - r * Math.cos(value)]);
      c.lineWidth = 1;
    }
    c.fillStyle = colour("dim");
    c.font = "9px system-ui, sans-serif";
    c.fillText(label.replace("position ", ""), x, y + r + 9, w - 2);
    c.fillText(value === null ? "…" : `${value.toFixed(2)} rad`, x, y + r + 19, w - 2);
  });
  c.textAlign = "left";
}
