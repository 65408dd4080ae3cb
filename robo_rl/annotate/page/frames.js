// The picture at the cursor.

import { query } from "./api.js";
import { S, on } from "./state.js";

const figure = document.getElementById("camera");
const canvas = figure.querySelector("canvas");
let topic = 0, busy = false, stale = false;
/** How long each picture took from the request to the painted picture, ms; for measurements. */
export const latencies = [];
export const shown = { t: null };

export function useFrames() {
  if (!S.log.images.length) return;
  figure.hidden = false;
  const choice = document.createElement("select");
  choice.setAttribute("aria-label", "topic of the picture");
  choice.append(...S.log.images.map((name, i) => new Option(name, i)));
  choice.addEventListener("change", () => { topic = Number(choice.value); fetchFrame(); choice.blur(); });
  figure.querySelector("figcaption").append(choice);
  on("cursor", fetchFrame);
  fetchFrame();
}

/** The topic whose pictures the cursor steps through; empty without pictures. */
export const frameTopic = () => S.log.images[topic] ?? "";

async function fetchFrame() {
  if (busy) { stale = true; return; }
  busy = true;
  stale = false;
  const asked = performance.now();
  try {
    const answer = await query("/api/frame", { i: topic, t: S.cursor });
    const picture = await createImageBitmap(await answer.blob());
    const height = Math.min(190, Math.round((canvas.clientWidth * picture.height) / picture.width));
    canvas.width = picture.width;
    canvas.height = picture.height;
    canvas.style.height = `${height}px`;
    canvas.style.objectFit = "contain";
    canvas.getContext("2d").drawImage(picture, 0, 0);
    shown.t = Number(answer.headers.get("X-Time"));
    canvas.setAttribute("aria-label", `picture at ${shown.t / 1e9} s`);
    latencies.push(performance.now() - asked);
  } catch (e) {
    const c = canvas.getContext("2d");
    c.clearRect(0, 0, canvas.width, canvas.height);
    c.fillStyle = "gray";
    c.fillText(e.message.slice(0, 60), 8, 20);
  } finally {
    busy = false;
    if (stale) fetchFrame();
  }
}
