// Talking to the server: every request carries the token of the page's address.

const token = new URLSearchParams(location.search).get("token") ?? "";

async function request(path, options = {}) {
  const headers = { "X-Token": token, ...(options.headers ?? {}) };
  let answer;
  try {
    answer = await fetch(path, { ...options, headers });
  } catch {
    throw new Error("the server does not answer");
  }
  if (!answer.ok) throw new Error((await answer.text()).trim() || `status ${answer.status}`);
  return answer;
}

export const query = (path, values = {}) => request(`${path}?${new URLSearchParams(values)}`);
export const json = async (path, values) => (await query(path, values)).json();
export const post = async (path, body) =>
  (await request(path, {
    method: "POST",
    headers: { "Content-Type": "application/json" },
    body: JSON.stringify(body),
  })).json();

/** Calls `heard` with every piece of news, for as long as the page lives; `lost` where the server is gone. */
export async function listen(heard, lost) {
  for (;;) {
    try {
      const reader = (await query("/api/events")).body.pipeThrough(new TextDecoderStream()).getReader();
      let text = "";
      for (;;) {
        const { done, value } = await reader.read();
        if (done) break;
        text += value;
        const parts = text.split("\n\n");
        text = parts.pop();
        for (const part of parts) heard(JSON.parse(part.replace(/^data: /, "")));
      }
      throw new Error("the server has ended");
    } catch (e) {
      lost(e.message);
      await new Promise((go) => setTimeout(go, 1000));
    }
  }
}
