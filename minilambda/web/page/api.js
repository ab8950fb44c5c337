// Requests to the gateway. The token travels in a header only, never in an address.

const KEY = "minilambda-token";
let token = "";
try {
  token = sessionStorage.getItem(KEY) || "";
} catch {
  token = "";
}
let wanted = () => {};

/** What a request failed of: `code` of the protocol, or "away" where the gateway does not answer. */
export class Fault extends Error {
  constructor(code, detail, status = 0, retry = 0) {
    super(detail);
    this.code = code;
    this.status = status;
    this.retry = retry; // seconds, 0 where nothing is said
  }
}

/** `ask(refused)` is called when the gateway wants a token; `refused`: it had one and did not take it. */
export function onTokenWanted(ask) {
  wanted = ask;
}

export function useToken(text, keep) {
  token = text;
  try {
    if (keep) sessionStorage.setItem(KEY, text);
    else sessionStorage.removeItem(KEY);
  } catch {
    // the token lasts as long as the page
  }
}

/** A reply that is no error. Raises `Fault`. */
export async function request(path, options = {}) {
  const headers = { ...options.headers };
  if (token) headers.Authorization = `Bearer ${token}`;
  let reply;
  try {
    reply = await fetch(path, { ...options, headers, cache: "no-store", credentials: "omit" });
  } catch (error) {
    if (error.name === "AbortError") throw error;
    throw new Fault("away", "The gateway does not answer.");
  }
  if (reply.ok) return reply;
  if (reply.status === 401) wanted(Boolean(token));
  throw await fault(reply);
}

async function fault(reply) {
  let told = {};
  try {
    told = await reply.json();
  } catch {
    told = {};
  }
  const detail = told.detail || told.title || `The gateway answered ${reply.status}.`;
  return new Fault(String(told.code || "unknown"), String(detail), reply.status, Number(reply.headers.get("Retry-After")) || 0);
}

export async function json(path, options) {
  const reply = await request(path, options);
  return { status: reply.status, value: await reply.json() };
}

/** Server-sent events as {name, data, id}; null for each sign of life between them. */
export async function* events(path, { signal, last = "" } = {}) {
  const headers = { Accept: "text/event-stream" };
  if (last) headers["Last-Event-ID"] = last;
  const reply = await request(path, { headers, signal });
  if (reply.status === 204) return;
  const reader = reply.body.pipeThrough(new TextDecoderStream()).getReader();
  let rest = "";
  let event = { name: "message", data: "", id: "" };
  try {
    for (;;) {
      const { done, value } = await reader.read();
      if (done) return;
      const lines = (rest + value).split("\n");
      rest = lines.pop();
      for (const line of lines) {
        if (line === "") {
          if (event.data) yield { ...event, data: JSON.parse(event.data) };
          event = { name: "message", data: "", id: "" };
        } else if (line.startsWith(":")) {
          yield null;
        } else {
          const cut = line.indexOf(":");
          const value = line.slice(cut + 1).replace(/^ /, "");
          const key = line.slice(0, cut);
          if (key === "event") event.name = value;
          else if (key === "data") event.data += value;
          else if (key === "id") event.id = value;
        }
      }
    }
  } catch (error) {
    if (error.name === "AbortError" || error instanceof Fault) throw error;
    throw new Fault("away", "The gateway does not answer any more.");
  } finally {
    reader.cancel().catch(() => {});
  }
}

export function pause(ms, signal) {
  return new Promise((resolve) => {
    const timer = setTimeout(resolve, ms);
    signal?.addEventListener("abort", () => {
      clearTimeout(timer);
      resolve();
    });
  });
}
