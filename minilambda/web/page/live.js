// The state of the cluster as it comes, for as long as the page is open.

import { Fault, events, pause } from "/page/api.js";

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
  }

  async run() {
    let tries = 0;
    for (;;) {
      let wait;
      try {
        await this.follow(() => (tries = 0));
        this.tell("gateway", "The gateway has ended.");
        wait = 1000;
      } catch (error) {
        wait = this.explain(error, tries);
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

  async follow(alive) {
    const cut = new AbortController();
    let timer = 0;
    const beat = () => {
      clearTimeout(timer);
      timer = setTimeout(() => cut.abort(new Fault("away", "The gateway is silent.")), SILENCE_MS);
    };
    beat();
    try {
      for await (const event of events("/api/events", { signal: cut.signal })) {
        beat();
        if (!event || event.name !== "state") continue;
        alive();
        this.state = event.data;
        this.tell(this.state.up ? "live" : "broker", this.state.problem?.detail || "");
      }
    } finally {
      clearTimeout(timer);
      cut.abort();
    }
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
