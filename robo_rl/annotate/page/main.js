// Starts the page: what the log holds, which key does what, and what the server has to tell.

import { json, listen } from "./api.js";
import { GUTTER, redraw, tOf } from "./drawing.js";
import * as frames from "./frames.js";
import * as help from "./help.js";
import { action, actionOf, load } from "./keys.js";
import * as marking from "./marking.js";
import * as moving from "./moving.js";
import * as panel from "./panel.js";
import { refreshPose, usePose } from "./pose.js";
import { ask, isAsking } from "./prompt.js";
import { S, emit, on, seek, select, view, zoom } from "./state.js";
import * as tiers from "./tiers.js";
import * as tracks from "./tracks.js";

const GONE = "the server is gone";
const $ = (id) => document.getElementById(id);

function declare() {
  const move = { group: "move" }, page = { group: "page" };
  action("play", ["Space"], "play or pause", moving.toggle, { ...move, shown: "play" });
  action("back", ["ArrowLeft"], "one frame or sample back", () => moving.step(-1), move);
  action("forward", ["ArrowRight"], "one frame or sample forward", () => moving.step(1), { ...move, shown: "step" });
  action("back1", ["Shift+ArrowLeft"], "one second back", () => moving.jump(-1), move);
  action("forward1", ["Shift+ArrowRight"], "one second forward", () => moving.jump(1), { ...move, shown: "1 s" });
  action("reverse", ["j"], "play backwards, again: faster", () => moving.shuttle(-1), { ...move, shown: "back" });
  action("pause", ["k"], "pause", () => moving.play(0), { ...move, shown: "pause" });
  action("shuttle", ["l"], "play forwards, again: faster", () => moving.shuttle(1), { ...move, shown: "on" });
  action("slower", ["<"], "slower (0.1 to 4 times)", () => moving.speed(-1), move);
  action("faster", [">"], "faster", () => moving.speed(1), move);
  action("start", ["Home"], "to the start", () => seek(0), move);
  action("end", ["End"], "to the end", () => seek(S.log.duration_ns), move);
  action("zoomin", ["+", "="], "look closer", () => zoom(0.5), move);
  action("zoomout", ["-"], "look from further away", () => zoom(2), move);
  action("fit", ["0"], "show the whole log", () => view(0, S.log.duration_ns), { ...move, shown: "all" });
  action("snap", ["c"], "snap marks to samples or frames", moving.cycleSnap, { ...move, shown: "snap" });
  action("episode", ["e"], "episode: begin, end", () => marking.range("episode"), { shown: "episode" });
  action("success", ["s"], "the episode succeeded (ends it where it is open)", () => marking.outcome("success"), { shown: "success" });
  action("failure", ["f"], "the episode failed", () => marking.outcome("failure"), { shown: "failure" });
  action("aborted", ["a"], "the episode was aborted", () => marking.outcome("aborted"), { shown: "aborted" });
  action("intervention", ["i"], "intervention: begin, end", () => marking.range("intervention", "human"), { shown: "intervention" });
  for (let k = 1; k <= 9; k++) {
    const name = S.log.subtasks[k - 1];
    action(`subtask${k}`, [String(k)], `subtask ${name ?? k}: begin, end`, () => marking.subtask(k), { shown: k === 1 ? "…9 subtask" : "" });
  }
  action("event", ["m"], "event at the cursor", marking.event, { shown: "event" });
  action("note", ["n"], "note", marking.note, { shown: "note" });
  action("reward", ["r"], "reward, between [ and ] or at the cursor", marking.reward, { shown: "reward" });
  action("exclude", ["x"], "exclude: begin, end", marking.exclude, { shown: "exclude" });
  action("sysid", ["y"], "window for identification: begin, end", marking.sysid, { shown: "sysid" });
  action("in", ["["], "start of the next range here", () => { S.in = S.cursor; emit("open"); }, { ...page, shown: "in" });
  action("out", ["]"], "end of the next range here", () => { S.out = S.cursor; emit("open"); }, { ...page, shown: "out" });
  action("movestart", ["{"], "selected mark starts here", () => marking.moveEdge("t0"));
  action("moveend", ["}"], "selected mark ends here", () => marking.moveEdge("t1"));
  action("confirm", ["Enter"], "confirm the selected draft, or change what a mark says", marking.confirm, { shown: "confirm/edit" });
  action("delete", ["Delete", "Backspace"], "delete the selected mark, reject the selected draft", marking.remove, { shown: "delete" });
  action("undo", ["z"], "undo", () => travel("undo"), { shown: "undo" });
  action("redo", ["Shift+z"], "redo", () => travel("redo"), { shown: "redo" });
  action("review", ["Tab"], "next mark to review", () => marking.review(1), { shown: "review" });
  action("reviewback", ["Shift+Tab"], "mark to review before", () => marking.review(-1));
  action("previous", ["ArrowUp"], "mark before", () => panel.step(-1));
  action("next", ["ArrowDown"], "next mark", () => panel.step(1));
  action("propose", ["p"], "let the rules propose drafts", marking.propose, { shown: "propose" });
  action("tracks", ["t"], "show or hide a signal", pick, { ...page, shown: "signals" });
  action("search", ["/"], "search marks", () => $("search").focus(), { ...page, shown: "search" });
  action("cancel", ["Escape"], "give up what has begun", cancel, page);
  action("help", ["?"], "all keys, and how to change them", () => help.toggle(), { ...page, shown: "help" });
}

async function travel(op) {
  const id = await marking.operate({ op });
  if (id) select(id, false);
  else marking.say(`nothing to ${op}`);
}

function cancel() {
  S.open = {};
  S.in = S.out = null;
  S.selected = null;
  emit("open", "marks");
}

async function pick() {
  const shown = new Set(S.tracks);
  const choices = S.log.signals.map((s, i) => [i, `${shown.has(i) ? "● " : ""}${s.name} ${s.unit && `(${s.unit})`}`]);
  choices.sort(([a], [b]) => shown.has(b) - shown.has(a));
  const answer = await ask({ title: "show or hide a signal", choices, text: "type to find", list: true });
  if (answer) {
    if (!shown.delete(answer.choice)) shown.add(answer.choice);
    S.tracks = [...shown];
    localStorage.setItem(`tracks ${S.log.name}`, JSON.stringify(S.tracks.map((i) => S.log.signals[i].name)));
    emit("tracks");
  }
}

function chooseTracks() {
  const names = S.log.signals.map((s) => s.name);
  try {
    const stored = JSON.parse(localStorage.getItem(`tracks ${S.log.name}`) ?? "[]");
    S.tracks = stored.map((n) => names.indexOf(n)).filter((i) => i >= 0);
  } catch { S.tracks = []; }
  if (!S.tracks.length) S.tracks = S.log.first;
}

function usePointer() {
  const canvas = $("tracks");
  let from = null;
  canvas.addEventListener("wheel", (e) => {
    e.preventDefault();
    const span = S.t1 - S.t0, sideways = e.shiftKey ? e.deltaY : e.deltaX;
    if (Math.abs(sideways) > Math.abs(e.shiftKey ? 0 : e.deltaY)) view(S.t0 + sideways * span * 0.001, S.t1 + sideways * span * 0.001);
    else zoom(Math.exp(e.deltaY * 0.0015), tOf(e.offsetX, canvas.clientWidth));
  }, { passive: false });
  canvas.addEventListener("pointerdown", (e) => {
    from = { x: e.offsetX, t0: S.t0, t1: S.t1, moved: false };
    canvas.setPointerCapture(e.pointerId);
  });
  canvas.addEventListener("pointermove", (e) => {
    if (!from) return;
    const d = ((from.x - e.offsetX) / (canvas.clientWidth - GUTTER)) * (from.t1 - from.t0);
    from.moved ||= Math.abs(e.offsetX - from.x) > 4;
    if (from.moved) view(from.t0 + d, from.t1 + d);
  });
  canvas.addEventListener("pointerup", (e) => {
    if (from && !from.moved) seek(tOf(e.offsetX, canvas.clientWidth), false);
    from = null;
  });
}

function useKeys() {
  document.addEventListener("keydown", (e) => {
    if (help.isOpen()) return help.onKey(e);
    if (isAsking() || e.target.matches("input, select")) return;
    const found = actionOf(e);
    if (!found) return;
    e.preventDefault();
    found.run();
  });
  help.whenChanged(panel.paintKeys);
}

function heard(news) {
  const reading = ["done", "total", "ready"].some((k) => S.progress[k] !== news[k]);
  S.progress = news;
  if (news.failure) marking.say(news.failure, true);
  else if ($("saved").textContent.startsWith(GONE)) marking.say("connected again");
  if (reading) {
    tracks.fetchTracks();
    tracks.fetchValues();
    refreshPose();
  }
  fetchMarks();
}

let fetching = false;
/** Gets the marks where the server has newer ones and no answer that brings them is on its way. */
async function fetchMarks() {
  if (fetching || marking.isSaving() || S.progress.version <= S.version) return;
  fetching = true;
  try {
    const first = S.version === 0;
    marking.take(await json("/api/marks"));
    if (first) marking.say(S.log.read_only ? "read only" : "every mark is saved at once");
  } catch (e) {
    marking.say(e.message, true);
    await new Promise((go) => setTimeout(go, 1000));
  }
  fetching = false;
  fetchMarks();
}

/** Shows the place that the address names: #t=12.5 or #t=12.5,13.5, in seconds. */
function follow() {
  const at = new URLSearchParams(location.hash.slice(1)).get("t")?.split(",").map(Number);
  if (!at?.every(Number.isFinite)) return;
  const end = at[1] ?? at[0], around = Math.max(1, end - at[0]);
  view((at[0] - around) * 1e9, (end + around) * 1e9);
  seek(at[0] * 1e9);
}

async function start() {
  S.log = await json("/api/log");
  document.title = `${S.log.name} · annotate`;
  $("name").textContent = S.log.name;
  S.author = sessionStorage.getItem("author") ?? S.log.author;
  if (S.log.read_only) $("author").disabled = true;
  chooseTracks();
  declare();
  load();
  S.t1 = S.log.duration_ns;
  panel.usePanel();
  frames.useFrames();
  usePose();
  usePointer();
  useKeys();
  marking.whenSaved(fetchMarks);
  tiers.usePointer((id, changes) => marking.operate({ op: "replace", id, ...changes }));
  view(0, S.log.duration_ns);
  follow();
  addEventListener("hashchange", follow);
  emit("tracks", "marks", "open", "cursor");
  listen(heard, (message) => marking.say(`${GONE}: ${message}`, true));
  document.body.dataset.ready = "1";
}

on("tracks", redraw);
// For measurements and tests: what is shown, and how long requests took.
window.annotator = { S, seek, view, tracks, frames, marking };
start().catch((e) => marking.say(e.message, true));
