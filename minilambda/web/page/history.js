// What the states told so far, for the charts.

const KEPT = 330; // samples; about one a second
const WINDOW_MS = 300000;
const CLOCK_MS = 60000; // a clock that goes back by more is another one
const FIRST_MS = 60000; // the charts begin with so much, and grow

export class History {
  constructor() {
    this.samples = [];
    this.stamp = 0; // when the last sample came, by the page's own clock
    this.ended = null; // jobs that had ended at the last sample
  }

  /** Take in what a state says. */
  add(state, up) {
    const { overview, workers } = state;
    const t = state.at * 1000;
    const behind = this.samples.length ? t - this.samples.at(-1).t : 1;
    if (behind < -CLOCK_MS) this.samples = []; // another gateway, by another clock
    else if (behind <= 0) return;
    const last = this.samples.at(-1);
    const known = up && (overview !== null || workers !== null);
    const sample = { t, up: known, ...load(state), rate: null };
    if (known && overview) {
      const ended = Object.values(overview.outcomes).reduce((sum, each) => sum + each, 0);
      if (this.ended !== null && last?.up) sample.rate = Math.max(0, ended - this.ended) / ((t - last.t) / 1000);
      this.ended = ended;
    }
    this.samples.push(sample);
    this.stamp = performance.now();
    if (this.samples.length > KEPT) this.samples.shift();
  }

  /** Nothing is known of now. */
  gap() {
    const last = this.samples.at(-1);
    if (last) this.samples.push({ t: last.t + Math.max(1, performance.now() - this.stamp), up: false, rate: null });
    this.stamp = performance.now();
    if (this.samples.length > KEPT) this.samples.shift();
  }

  /** How much of time the charts show, milliseconds. */
  length() {
    const all = this.samples.length ? this.samples.at(-1).t - this.samples[0].t : 0;
    return Math.min(WINDOW_MS, Math.max(FIRST_MS, all));
  }
}

/** Workers, slots, jobs at workers and jobs that wait: of the overview, or as the list of workers tells it. */
export function load({ overview, workers, queued }) {
  if (overview) {
    const { slots, running } = overview;
    return { workers: overview.workers, slots, running, used: used(workers) ?? Math.min(slots, running), queued: overview.queued };
  }
  const list = workers || [];
  const slots = list.reduce((sum, each) => sum + each.slots, 0);
  const running = list.reduce((sum, each) => sum + each.queue, 0);
  return { workers: list.length, slots, running, used: used(list) ?? 0, queued: queued || 0 };
}

function used(workers) {
  return workers ? workers.reduce((sum, each) => sum + Math.min(each.queue, each.slots), 0) : null;
}
