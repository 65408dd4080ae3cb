// Moving through the log: playing, stepping, snapping.

import { json } from "./api.js";
import { frameTopic } from "./frames.js";
import { S, emit, seek, view } from "./state.js";

const SPEEDS = [0.1, 0.25, 0.5, 1, 2, 4];
let last = 0;

/** Plays at so many recorded seconds per second; 0 pauses. */
export function play(rate) {
  const was = S.playing;
  S.playing = rate;
  emit("open");
  if (rate && !was) {
    last = performance.now();
    requestAnimationFrame(advance);
  }
}

function advance(now) {
  if (!S.playing) return;
  const t = S.cursor + (now - last) * 1e6 * S.playing;
  last = now;
  if (t <= 0 || t >= S.log.duration_ns) play(0);
  const span = S.t1 - S.t0, place = (t - S.t0) / span;
  if (span < S.log.duration_ns && (place > 0.8 || place < 0.2)) {
    const to = S.playing > 0 ? 0.8 : 0.2;
    if ((place - to) * S.playing > 0) view(t - to * span, t + (1 - to) * span);
  }
  seek(t);
  requestAnimationFrame(advance);
}

export const toggle = () => play(S.playing ? 0 : S.speed);

/** J and L: backwards and forwards, faster with every press. */
export function shuttle(direction) {
  const same = Math.sign(S.playing) === direction;
  play(direction * (same ? Math.min(4, Math.abs(S.playing) * 2) : S.speed));
}

export function speed(step) {
  S.speed = SPEEDS[Math.min(SPEEDS.length - 1, Math.max(0, SPEEDS.indexOf(S.speed) + step))];
  if (S.playing) play(Math.sign(S.playing) * S.speed);
  emit("open");
}

/** Where steps and snapping look: the picture's topic, else the topic of the first track. */
const topic = () => frameTopic() || S.log.signals[S.tracks[0]]?.topic || "";

let steps = 0, stepping = null;
/** Steps by pictures, or by samples where there are none; presses that come meanwhile add up. */
export function step(direction) {
  play(0);
  steps += direction;
  stepping ??= (async () => {
    while (steps) {
      const now = steps;
      steps = 0;
      if (topic()) seek((await json("/api/snap", { topic: topic(), t: S.cursor, steps: now })).t);
    }
    stepping = null;
  })();
  return stepping;
}

export const jump = (seconds) => { play(0); seek(S.cursor + seconds * 1e9); };

export function cycleSnap() {
  const kinds = S.log.images.length ? ["off", "sample", "frame"] : ["off", "sample"];
  S.snap = kinds[(kinds.indexOf(S.snap) + 1) % kinds.length];
  emit("open");
}

/** Where the cursor is now, on a sample or picture where snapping is on. */
export async function snapped() {
  const before = stepping ? null : S.cursor; // steps that are on their way count
  await stepping;
  const at = before ?? S.cursor;
  const where = S.snap === "frame" ? frameTopic() : S.log.signals[S.tracks[0]]?.topic;
  if (S.snap === "off" || !where) return at;
  const { t } = await json("/api/snap", { topic: where, t: at, steps: 0 });
  if (S.cursor === at) seek(t);
  return t;
}
