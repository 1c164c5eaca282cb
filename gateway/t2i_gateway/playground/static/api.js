// Calls of the gateway. A refusal becomes a Problem that says which field it is about and when to come back.

let token = "";

export function useToken(text) {
  token = text;
}

export class Problem extends Error {
  constructor(message, { status = 0, param = null, retryAfterS = null } = {}) {
    super(message);
    Object.assign(this, { status, param, retryAfterS });
  }
}

export async function call(path, { json, raw, signal, keepalive } = {}) {
  const headers = token ? { authorization: `Bearer ${token}` } : {};
  const body = raw ?? (json === undefined ? undefined : JSON.stringify(json));
  if (body !== undefined) headers["content-type"] = "application/json";
  let answer;
  try {
    answer = await fetch(path, { method: body === undefined ? "GET" : "POST", headers, body, signal, keepalive });
  } catch {
    throw new Problem("The gateway does not answer. Is it still running?");
  }
  if (!answer.ok) throw await problemOf(answer);
  return answer;
}

async function problemOf(answer) {
  const told = await answer.json().catch(() => ({}));
  const after = answer.headers.get("retry-after-ms");
  return new Problem(told.error?.message ?? `The gateway answered with status ${answer.status}.`, {
    status: answer.status,
    param: told.error?.param ?? null,
    retryAfterS: after === null ? null : Number(after) / 1000,
  });
}

// The data of each server-sent event of an answer.
export async function* eventsOf(answer) {
  const reader = answer.body.pipeThrough(new TextDecoderStream()).getReader();
  let rest = "";
  for (;;) {
    const { value, done } = await reader.read();
    if (done) return;
    const parts = (rest + value).split("\n\n");
    rest = parts.pop();
    for (const part of parts) {
      const data = part.split("\n").filter((line) => line.startsWith("data: ")).map((line) => line.slice(6));
      if (data.length) yield JSON.parse(data.join("\n"));
    }
  }
}
