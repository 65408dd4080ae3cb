// A question at the bottom of the page: choices by number, or text; Enter answers, Escape takes it back.

const box = document.getElementById("prompt");
let waiting = null;

export const isAsking = () => waiting !== null;

/**
 * Asks; resolves to {choice} (its value), {text}, or null.
 * choices: [[value, label], …]; text: what may be typed (placeholder), or "" for choices only; list: filter by typing.
 */
export function ask({ title, choices = [], text = "", initial = "", list = false }) {
  box.replaceChildren();
  const head = document.createElement("strong");
  head.textContent = title;
  const options = document.createElement("div");
  options.className = list ? "choices long" : "choices";
  const input = document.createElement("input");
  input.placeholder = text;
  input.value = initial;
  input.spellcheck = false;
  const hint = document.createElement("small");
  hint.textContent = (choices.length && !list ? "a number chooses · " : "") + "Enter takes it · Escape takes it back";
  box.append(head, options, input, hint);
  box.hidden = false;
  input.readOnly = !text;
  const before = document.activeElement;
  let shown = [], marked = 0;

  return new Promise((done) => {
    const finish = (answer) => {
      box.hidden = true;
      waiting = null;
      before?.blur?.();
      done(answer);
    };
    waiting = finish;
    const fill = () => {
      const words = input.value.toLowerCase().split(/\s+/);
      shown = list ? choices.filter(([, label]) => words.every((w) => label.toLowerCase().includes(w))) : choices;
      marked = Math.min(marked, Math.max(0, shown.length - 1));
      options.replaceChildren(...shown.slice(0, 200).map(([value, label], i) => {
        const b = document.createElement("button");
        if (!list) {
          const key = document.createElement("kbd");
          key.textContent = i + 1;
          b.append(key, " ");
        }
        b.append(label);
        b.classList.toggle("on", list && i === marked);
        b.addEventListener("click", () => finish({ choice: value }));
        return b;
      }));
      options.children[marked]?.scrollIntoView?.({ block: "nearest" });
    };
    fill();
    input.addEventListener("input", () => { if (list) { marked = 0; fill(); } });
    input.addEventListener("keydown", (e) => {
      e.stopPropagation();
      const number = Number(e.key);
      if (e.key === "Escape") finish(null);
      else if (e.key === "Enter") {
        if (list) finish(shown[marked] ? { choice: shown[marked][0] } : null);
        else finish(text ? { text: input.value.trim() } : { choice: choices[0]?.[0] });
      } else if (list && (e.key === "ArrowDown" || e.key === "ArrowUp")) {
        marked = Math.max(0, Math.min(shown.length - 1, marked + (e.key === "ArrowDown" ? 1 : -1)));
        fill();
      } else if (!list && number >= 1 && number <= choices.length && (!input.value || !text || input.value === initial)) {
        finish({ choice: choices[number - 1][0] });
      } else if (e.key !== "Tab") return;
      e.preventDefault();
    });
    input.focus();
    input.select();
  });
}

document.addEventListener("pointerdown", (e) => {
  if (waiting && !box.contains(e.target)) waiting(null);
});
