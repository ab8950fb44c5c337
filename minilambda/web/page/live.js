// The state of the cluster as it comes, for as long as the page is open.

import { Fault, events, json, pause } from "/page/api.js";

const GLANCE_MS = 5000; // how often a page that is hidden looks
const SILENCE_MS = 40000; // a stream that has not even beaten for so long is dead

/**
 * Follow the state for ever. `told({state, link, detail})` is called on each change; `link` is
 * "live", "broker" (it is away), "gateway" (it is away), "token" (one is wanted) or "forbidden".
 */
export class Live {
  constructor(told) {
    this.told = told;
    this.state = null;
    this.again = null; // ends the pause before the next try
    this.cut = null; // ends the stream
    document.addEventListener("visibilitychange", () => {
      if (document.hidden) this.cut?.abort();
      else this.retry();
    });
  }

  async run() {
    let tries = 0;
    for (;;) {
      let wait;
      try {
        if (document.hidden) wait = await this.glance();
        else wait = await this.follow(() => (tries = 0));
      } catch (error) {
        wait = error.name === "AbortError" ? 0 : this.explain(error, tries);
      }
      tries += 1;
      this.again = new AbortController();
      await pause(wait, this.again.signal);
    }
  }

  /** Try again now. */
  retry() {
    this.again?.abort();
  }

  /** Look once. Nobody sees the page, and a browser has six connections to a gateway for all its tabs. */
  async glance() {
    this.hear((await json("/api/state")).value);
    return GLANCE_MS;
  }

  async follow(alive) {
    const cut = new AbortController();
    this.cut = cut;
    let timer = 0;
    const beat = () => {
      clearTimeout(timer);
      timer = setTimeout(() => cut.abort(new Fault("away", "The gateway is silent.")), SILENCE_MS);
    };
    beat();
    try {
      for await (const event of events("/api/events", { signal: cut.signal })) {
        beat();
        if (event?.name !== "state") continue;
        alive();
        this.hear(event.data);
      }
    } finally {
      clearTimeout(timer);
      cut.abort();
    }
    this.tell("gateway", "The gateway has ended.");
    return 1000;
  }

  hear(state) {
    this.state = state;
    this.tell(state.up ? "live" : "broker", state.problem?.detail || "");
  }

  /** Say what went wrong; returns how long to wait before the next try, milliseconds. */
  explain(error, tries) {
    const status = error.status || 0;
    if (status === 401 || status === 403) {
      this.tell(status === 401 ? "token" : "forbidden", error.message);
      return 2 ** 31 - 1; // until there is another token
    }
    this.tell("gateway", error instanceof Fault ? error.message : "The gateway does not answer.");
    return Math.max(1000 * (error.retry || 0), Math.min(1000 * 2 ** tries, 5000));
  }

  tell(link, detail) {
    this.told({ state: this.state, link, detail });
  }
}
