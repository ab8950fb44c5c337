// Numbers as people read them.

const count = new Intl.NumberFormat("en");

export function whole(number) {
  return count.format(Math.round(number));
}

const rough = new Intl.NumberFormat("en", { notation: "compact", maximumSignificantDigits: 3 });

/** A number that may be large, in a few signs. */
export function compact(number) {
  return Math.abs(number) < 10000 ? whole(number) : rough.format(number);
}

/** Milliseconds, with two or three digits that matter. */
export function span(ms) {
  if (ms === 0) return "0 ms";
  if (ms < 0.1) return `${(ms * 1000).toFixed(0)} µs`;
  if (ms < 10) return `${ms.toFixed(ms < 1 ? 2 : 1)} ms`;
  if (ms < 1000) return `${ms.toFixed(0)} ms`;
  const s = ms / 1000;
  if (s < 60) return `${s.toFixed(s < 10 ? 1 : 0)} s`;
  if (s < 3600) return `${Math.floor(s / 60)} min ${Math.floor(s % 60)} s`;
  if (s < 86400) return `${Math.floor(s / 3600)} h ${Math.floor((s % 3600) / 60)} min`;
  return `${Math.floor(s / 86400)} d ${Math.floor((s % 86400) / 3600)} h`;
}

/** A long time, coarse: minutes, or hours, or days. */
export function long(ms) {
  const s = ms / 1000;
  if (s < 100) return `${Math.floor(s)} s`;
  if (s < 6000) return `${Math.floor(s / 60)} min`;
  if (s < 172800) return `${Math.floor(s / 3600)} h`;
  return `${Math.floor(s / 86400)} d`;
}

/** How long ago, milliseconds; coarse, so that rows don't flicker. */
export function ago(ms) {
  const s = Math.max(0, ms) / 1000;
  if (s < 1) return "now";
  if (s < 60) return `${Math.floor(s)} s ago`;
  if (s < 3600) return `${Math.floor(s / 60)} min ago`;
  if (s < 86400) return `${Math.floor(s / 3600)} h ago`;
  return `${Math.floor(s / 86400)} d ago`;
}

export function bytes(number) {
  if (number < 1024) return `${number} B`;
  const units = ["KiB", "MiB", "GiB", "TiB"];
  let at = -1;
  do {
    number /= 1024;
    at += 1;
  } while (number >= 1024 && at < units.length - 1);
  return `${number.toFixed(number < 10 ? 1 : 0)} ${units[at]}`;
}

export function rate(perSecond) {
  return perSecond < 10 ? perSecond.toFixed(1).replace(/\.0$/, "") : whole(perSecond);
}

export function clock(seconds) {
  return new Date(seconds * 1000).toLocaleTimeString("en-GB");
}

/** `sha256:` and the first digits. */
export function digest(text) {
  return text.length > 20 ? `${text.slice(0, 15)}…` : text;
}

/** The end of a long id tells jobs of one client apart. */
export function short(id) {
  return id.length > 18 ? `${id.slice(0, 6)}…${id.slice(-9)}` : id;
}
