// What the page shows. Instants are whole nanoseconds since the start of the log.

export const S = {
  log: null, // answer of /api/log
  t0: 0, // the window
  t1: 1,
  cursor: 0,
  tracks: [], // numbers of the signals shown
  marks: [],
  version: 0, // of the marks
  conflicts: new Set(),
  selected: null, // id of a mark
  open: {}, // kind -> {t0, label, value}: ranges that wait for their end
  in: null,
  out: null,
  playing: 0, // recorded seconds per second; 0 stands still
  speed: 1,
  snap: "off", // off, sample or frame
  author: "",
  filter: "",
  progress: { done: 0, total: 0, version: 0 }, // the newest news
};

const listeners = {};
/** Calls `act` whenever one of the named things changes: log, view, cursor, marks, tracks, open. */
export function on(names, act) {
  for (const name of names.split(" ")) (listeners[name] ??= []).push(act);
}
export function emit(...names) {
  for (const act of new Set(names.flatMap((n) => listeners[n] ?? []))) act();
}

export const clamp = (x, low, high) => Math.min(high, Math.max(low, x));

/** Shows a window; it stays within the log and at least a microsecond long. */
export function view(t0, t1) {
  const whole = S.log.duration_ns;
  const span = clamp(Math.round(t1 - t0), 1000, Math.round(whole * 1.02) + 1000);
  S.t0 = Math.round(clamp(t0, -whole * 0.01, Math.max(-whole * 0.01, whole * 1.01 - span)));
  S.t1 = S.t0 + span;
  emit("view");
}

/** Moves the cursor; the window follows where `follow`. */
export function seek(t, follow = true) {
  S.cursor = Math.round(clamp(t, 0, S.log.duration_ns));
  const span = S.t1 - S.t0;
  if (follow && (S.cursor < S.t0 || S.cursor > S.t1)) view(S.cursor - span / 2, S.cursor + span / 2);
  emit("cursor");
}

export function zoom(factor, around = S.cursor) {
  const at = around >= S.t0 && around <= S.t1 ? around : (S.t0 + S.t1) / 2;
  view(at - (at - S.t0) * factor, at + (S.t1 - at) * factor);
}

export const markOf = (id) => S.marks.find((m) => m.id === id);

/** Selects a mark and shows it. */
export function select(id, move = true) {
  S.selected = id;
  const m = markOf(id);
  if (m && move) {
    if (m.t0 < S.t0 || m.t1 > S.t1) {
      const span = Math.max(S.t1 - S.t0, (m.t1 - m.t0) * 1.5);
      view((m.t0 + m.t1) / 2 - span / 2, (m.t0 + m.t1) / 2 + span / 2);
    }
    seek(m.t0);
  }
  emit("marks");
}

export function seconds(t, digits = 3) {
  const s = Math.abs(t) / 1e9;
  const rest = (s % 60).toFixed(digits);
  const text = s < 60 ? rest : `${Math.floor(s / 60)}:${rest.padStart(digits ? 3 + digits : 2, "0")}`;
  return (t < 0 ? "-" : "") + text;
}
