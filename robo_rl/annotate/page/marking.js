// Setting and changing marks. A mark counts, and is shown, once the server has it on the disk.

import { post } from "./api.js";
import { ask } from "./prompt.js";
import { S, emit, markOf, select } from "./state.js";
import { snapped } from "./moving.js";

const status = document.getElementById("saved");
/** From the key to the server's word that the mark is on the disk, ms; for measurements. */
export const latencies = [];

export function say(text, bad = false) {
  status.textContent = text;
  status.classList.toggle("bad", bad);
}

/** Shows what the server has answered, unless something newer is shown already. */
export function take(answer) {
  if (answer.version < S.version) return;
  S.marks = answer.marks;
  S.conflicts = new Set(answer.conflicts);
  S.version = answer.version;
  if (!markOf(S.selected)) S.selected = null;
  emit("marks");
}

let queue = Promise.resolve(), waiting = 0;
let after = () => {};
/** Whether operations are on their way; their answers bring all marks along. */
export const isSaving = () => waiting > 0;
export function whenSaved(act) { after = act; }

/** One operation; they reach the server in the order of the keys. Resolves to the mark's id, or null. */
export function operate(request) {
  const asked = performance.now();
  say("saving …");
  waiting += 1;
  queue = queue.then(async () => {
    try {
      const answer = await post("/api/marks", { author: S.author, ...request });
      if (request.op === "add") S.selected = answer.id;
      take(answer);
      const took = performance.now() - asked;
      latencies.push(took);
      say(`saved · ${took.toFixed(0)} ms`);
      return answer.id;
    } catch (e) {
      say(`NOT saved: ${e.message}`, true);
      return null;
    } finally {
      waiting -= 1;
      after();
    }
  });
  return queue;
}

let turn = Promise.resolve();
let here = 0; // the instant at which the key was pressed whose turn it is
/** Runs an action after those before it, on the instant at which it was asked for. */
export function inTurn(act) {
  const asked = snapped().catch(() => S.cursor);
  turn = turn.then(async () => {
    here = await asked;
    await act();
  }).catch((e) => say(e.message, true));
  return turn;
}

const ordered = (a, b) => (a <= b ? [a, b] : [b, a]);

/** Sets a range between [ and ], or begins one here, or ends the one that has begun. */
export async function range(kind, label = "", describe = null) {
  let t0, t1;
  if (S.in !== null && S.out !== null) {
    [t0, t1] = ordered(S.in, S.out);
    S.in = S.out = null;
  } else if (S.open[kind]) {
    const begun = S.open[kind];
    [t0, t1] = ordered(begun.t0, here);
    delete S.open[kind];
    emit("open");
    if (t0 === t1) return say(`${kind} given up: it had no length`);
    if (kind === "subtask" && begun.label !== label) S.open[kind] = { t0: here, label };
    label = begun.label;
  } else {
    S.open[kind] = { t0: here, label };
    emit("open");
    return say(`${kind} begins; the same key ends it`);
  }
  emit("open");
  const more = describe ? await describe() : {};
  if (more) await operate({ op: "add", kind, t0, t1, label, ...more });
}

export async function subtask(number) {
  await range("subtask", S.log.subtasks[number - 1] ?? `subtask ${number}`);
}

export const exclude = () => range("exclude", "", async () => {
  const answer = await ask({ title: "exclude: why?", text: "reason, may stay empty" });
  return answer && { value: answer.text ? { reason: answer.text } : {} };
});

const WINDOWS = ["free-space", "contact", "excitation"].flatMap((l) => ["train", "val"].map((split) => [l, split]));
export const sysid = () => range("sysid", "", askWindow);
async function askWindow() {
  const choices = WINDOWS.map(([label, split]) => [{ label, value: { split } }, `${label}, ${split}`]);
  return (await ask({ title: "window for identification", choices }))?.choice ?? null;
}

/** Sets the outcome of the episode at the cursor; ends it here where it is still open. */
export async function outcome(label) {
  let episode = S.open.episode ? null : episodeHere();
  if (S.open.episode) {
    await range("episode");
    episode = markOf(S.selected);
  }
  if (episode?.kind !== "episode") return say("no episode here: e begins one", true);
  const old = S.marks.find((m) => m.kind === "outcome" && m.episode === episode.id && m.who === S.author);
  const { t0, t1 } = episode;
  if (old) await operate({ op: "replace", id: old.id, label, t0, t1 });
  else await operate({ op: "add", kind: "outcome", label, episode: episode.id, t0, t1 });
}

function episodeHere() {
  const episodes = S.marks.filter((m) => m.kind === "episode" && m.status !== "rejected");
  return episodes.find((m) => m.id === S.selected) ??
    episodes.findLast((m) => m.t0 <= here && here <= m.t1) ?? episodes.findLast((m) => m.t1 <= here);
}

export async function event() {
  const label = await askLabel("event", S.log.events);
  if (label) await operate({ op: "add", kind: "event", t0: here, t1: here, label });
}

async function askLabel(title, known, initial = "") {
  const answer = await ask({ title, choices: known.map((l) => [l, l]), text: "or another word", initial });
  return answer && (answer.choice || answer.text || known[0]);
}

/** A mark of a kind that may be an instant or a range: between [ and ] where both are set. */
async function hereOrBetween(kind, more) {
  let t0, t1;
  if (S.in !== null && S.out !== null) {
    [t0, t1] = ordered(S.in, S.out);
    S.in = S.out = null;
    emit("open");
  } else t0 = t1 = here;
  await operate({ op: "add", kind, t0, t1, ...more });
}

export async function note() {
  const answer = await ask({ title: "note", text: "what is worth remembering" });
  if (answer?.text) await hereOrBetween("note", { label: answer.text });
}

export async function reward() {
  const answer = await ask({ title: "reward", text: "a number" });
  if (!answer) return;
  const value = Number(answer.text.replace(",", "."));
  if (answer.text === "" || !Number.isFinite(value)) return say(`reward '${answer.text}' is no number`, true);
  await hereOrBetween("reward", { value: { reward: value } });
}

/** Asks anew what the selected mark says. */
export async function edit() {
  const m = markOf(S.selected);
  if (!m) return say("nothing is selected");
  let changes = null;
  const labels = S.log.kinds[m.kind].labels;
  if (m.kind === "sysid") changes = await askWindow();
  else if (m.kind === "reward") {
    const answer = await ask({ title: "reward", text: "a number", initial: String(m.value.reward) });
    if (answer && Number.isFinite(Number(answer.text))) changes = { value: { ...m.value, reward: Number(answer.text) } };
  } else if (labels.length) {
    const answer = await ask({ title: m.kind, choices: labels.map((l) => [l, l]) });
    changes = answer && { label: answer.choice };
  } else if (m.kind === "exclude") {
    const answer = await ask({ title: "exclude: why?", text: "reason", initial: m.value.reason ?? "" });
    changes = answer && { value: { ...m.value, reason: answer.text } };
  } else {
    const label = await askLabel(m.kind, m.kind === "event" ? S.log.events : m.kind === "subtask" ? S.log.subtasks : [], m.label);
    changes = label && { label };
  }
  if (changes) await operate({ op: "replace", id: m.id, status: "confirmed", ...changes });
}

export async function moveEdge(edge) {
  const m = markOf(S.selected);
  if (!m) return say("nothing is selected");
  await operate({ op: "replace", id: m.id, ...(m.t0 === m.t1 ? { t0: here, t1: here } : { [edge]: here }) });
}

export async function confirm() {
  const m = markOf(S.selected);
  if (!m) return say("nothing is selected");
  if (m.status === "confirmed" && !S.conflicts.has(m.id)) return edit();
  if (m.status !== "confirmed") await operate({ op: "review", id: m.id, status: "confirmed" });
  review(1);
}

/** Deletes the selected mark; a draft is rejected instead, so that it is not proposed again. */
export async function remove() {
  const m = markOf(S.selected);
  if (!m) return say("nothing is selected");
  if (m.status === "draft") {
    await operate({ op: "review", id: m.id, status: "rejected" });
    review(1);
  } else await operate({ op: "delete", id: m.id });
}

/** Goes to the next mark that nobody has reviewed: drafts, and marks that contradict one another. */
export function review(step) {
  const queue = S.marks.filter((m) => m.status === "draft" || S.conflicts.has(m.id));
  if (!queue.length) return say("nothing is left to review");
  const at = queue.findIndex((m) => m.id === S.selected);
  const after = queue.findIndex((m) => m.t0 > S.cursor);
  const next = at >= 0 ? at + step : step > 0 ? Math.max(0, after) : (after < 0 ? queue.length : after) - 1;
  const m = queue[(next + queue.length) % queue.length];
  select(m.id);
  say(`${queue.length} to review · Enter confirms, Delete rejects`);
}

export async function propose() {
  say("the rules are looking …");
  try {
    const answer = await post("/api/propose", {});
    take(answer);
    say(`${answer.added} new drafts · Tab reviews them`);
  } catch (e) {
    say(e.message, true);
  }
}
