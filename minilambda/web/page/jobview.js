// One job from near: its state, its output as it comes, how it ended, and where its time went.

import { Fault, events, json, pause, request } from "/page/api.js";
import { fillBadge, makeBadge } from "/page/badge.js";
import { foreign, make, put, say } from "/page/dom.js";
import { span } from "/page/format.js";
import { Output } from "/page/output.js";
import { resultNodes, storyNodes } from "/page/result.js";
import { ended, outcome } from "/page/words.js";

const LOOK_MS = 700; // between two questions where the job is

export class JobView {
  /** `story`: what happened to the job is told too. `loud`: its end is said to those who listen. */
  constructor(host, { story = false, loud = false } = {}) {
    Object.assign(this, { story, loud, job: "", stop: new AbortController() });
    this.badge = makeBadge();
    this.time = make("span", { class: "time" });
    this.where = make("p", { class: "note" });
    this.cancelButton = make("button", { type: "button", class: "danger" }, "Cancel");
    this.againButton = make("button", { type: "button", class: "quiet" }, "Run again");
    this.saveButton = make("button", { type: "button", class: "quiet" }, "Save stdout");
    this.fault = make("p", { class: "fault", role: "alert", hidden: true });
    this.end = make("div", { class: "end" });
    this.past = make("div", { class: "past" });
    const buttons = make("span", { class: "buttons" }, this.cancelButton, this.againButton, this.saveButton);
    host.append(make("div", { class: "state" }, this.badge, this.time, buttons), this.where, this.fault, this.end);
    this.output = new Output(host);
    host.append(this.past);
    this.cancelButton.addEventListener("click", () => this.cancel());
    this.againButton.addEventListener("click", () => this.again());
    this.saveButton.addEventListener("click", () => this.save());
  }

  /** Show this job, and follow it to its end. */
  async show(job) {
    this.leave();
    this.stop = new AbortController();
    const { signal } = this.stop;
    this.job = job;
    this.began = performance.now();
    this.status = null;
    this.output.clear(0);
    this.end.replaceChildren();
    this.past.replaceChildren();
    this.wrong("");
    this.paint("queued", "");
    const looking = this.look(signal);
    try {
      await this.follow(job, signal);
      await looking;
      if (!signal.aborted) await this.finish(job, signal);
    } catch (error) {
      if (!signal.aborted) this.wrong(error.message);
    }
  }

  /** Follow it no more. */
  leave() {
    this.stop.abort();
  }

  async follow(job, signal) {
    let last = "";
    for (let tries = 0; !signal.aborted; tries += 1) {
      let fault = new Fault("away", "The gateway has ended.");
      try {
        for await (const event of events(`/jobs/${job}/output`, { signal, last })) {
          if (!event) continue;
          tries = 0;
          last = event.id || last;
          this.wrong("");
          if (event.name === "end") return this.settle(event.data);
          if (event.name === "problem") fault = new Fault(event.data.code, event.data.detail, event.data.status);
          else this.output.add(event.name, event.data);
        }
      } catch (error) {
        fault = error;
      }
      if (signal.aborted) return;
      if (fault.code !== "away" && ![429, 502, 503, 504].includes(fault.status)) throw fault;
      this.wrong(`${fault.message} Trying again …`);
      await pause(Math.min(500 * 2 ** tries, 5000), signal);
    }
  }

  /** Ask now and then where the job is, until it has ended. */
  async look(signal) {
    while (!signal.aborted) {
      try {
        const { value } = await json(`/jobs/${this.job}?story=${this.story}`, { signal });
        if (!signal.aborted) this.settle(value);
      } catch (error) {
        if (error.status === 404 || error.status === 410 || error.status === 403) return;
      }
      if (this.status && ended(this.status.state)) return;
      await pause(LOOK_MS, signal);
    }
  }

  settle(status) {
    if (this.status && ended(this.status.state) && !ended(status.state)) return;
    const story = status.story || this.status?.story;
    this.status = { ...status, story };
    this.paint(status.state, status.error?.code || "");
    const attempt = status.attempt > 1 ? `, attempt ${status.attempt}` : "";
    const place = [foreign(status.job_id, { class: "code" })];
    if (status.worker) place.push(" on ", foreign(status.worker), attempt);
    if (status.cancelling && !ended(status.state)) place.push(", being cancelled");
    this.where.replaceChildren(...place);
    if (story) this.past.replaceChildren(...storyNodes(story));
  }

  paint(state, code) {
    fillBadge(this.badge, state, code);
    const over = ended(state);
    this.cancelButton.hidden = over || !this.status;
    this.againButton.hidden = !over;
    this.saveButton.hidden = !over;
    if (!over && this.status) put(this.time, span(this.status.age_ms));
  }

  async finish(job, signal) {
    this.output.end();
    const { value } = await json(`/jobs/${job}/result?wait=10`, { signal });
    if (signal.aborted || value.usage === undefined) return;
    put(this.time, span(value.usage.total_ms));
    this.end.replaceChildren(...resultNodes(value));
    const why = value.error ? `: ${value.error.message}` : "";
    if (this.loud) say(`The job has ended, ${outcome(value.state, value.error?.code).text}${why}`);
  }

  async cancel() {
    await this.ask(async () => this.settle((await json(`/jobs/${this.job}`, { method: "DELETE" })).value));
  }

  async again() {
    await this.ask(async () => {
      const { value } = await json(`/jobs/${this.job}/again`, { method: "POST" });
      this.show(value.job_id);
    });
  }

  async save() {
    await this.ask(async () => {
      const reply = await request(`/jobs/${this.job}/result?output=stdout`);
      const link = make("a", { href: URL.createObjectURL(await reply.blob()), download: `${this.job}.stdout` });
      link.click();
      setTimeout(() => URL.revokeObjectURL(link.href), 10000);
    });
  }

  async ask(work) {
    this.wrong("");
    try {
      await work();
    } catch (error) {
      this.wrong(error.message);
    }
  }

  wrong(text) {
    this.fault.hidden = !text;
    put(this.fault, text);
  }
}
