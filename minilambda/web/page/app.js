// The live page: what comes from the gateway goes to the parts that show it.

import { Chart } from "/page/chart.js";
import { openJob, openToken, startJobDialog, startTokenDialog } from "/page/dialogs.js";
import { by, make, mark, put, soon } from "/page/dom.js";
import { Figures } from "/page/figures.js";
import { clock, rate, whole } from "/page/format.js";
import { FunctionTable } from "/page/functions.js";
import { History } from "/page/history.js";
import { JobTable } from "/page/jobs.js";
import { LatencyTable } from "/page/latency.js";
import { Live } from "/page/live.js";
import { startRunBox, takeFunction } from "/page/run.js";
import { WorkerTable } from "/page/workers.js";

const history = new History();
const figures = new Figures(by("figures"));
const charts = [
  new Chart(by("chart-queue"), "Jobs", [
    { id: "queued", label: "waiting", kind: "area", value: (sample) => sample.queued, text: whole },
    { id: "running", label: "at workers", kind: "line", value: (sample) => sample.running, text: whole },
    { id: "slots", label: "slots", kind: "limit", value: (sample) => sample.slots, text: whole },
  ]),
  new Chart(by("chart-rate"), "Throughput", [
    { id: "rate", label: "jobs a second", kind: "area", value: (sample) => sample.rate, text: (value) => (value === null ? "–" : rate(value)) },
  ]),
];
const tables = [
  new LatencyTable(by("latency-view")),
  new WorkerTable(by("workers-view")),
  new JobTable(by("jobs-view"), openJob),
  new FunctionTable(by("functions-view"), takeFunction),
];
let paused = false;
let latest = { state: null, link: "wait", detail: "" };
let since = 0; // when the gateway answered last, seconds since 1970

function told(news) {
  latest = news;
  if (news.link === "live") since = news.state.at;
  if (news.link === "live" || (news.link === "broker" && news.state)) history.add(news.state, news.link === "live");
  else history.gap();
  soon("page", show);
}

function show() {
  showLink();
  if (paused || !latest.state) return;
  const { state } = latest;
  figures.update(state, history);
  for (const chart of charts) chart.update(history.samples, history.length());
  for (const table of tables) table.update(state);
  const { broker, gateway, overview } = state;
  const about = [broker.name, `gateway ${gateway.version}`, broker.principal && `as ${broker.principal}`];
  const refused = Object.values(overview?.rejected || {}).reduce((sum, each) => sum + each, 0);
  if (refused) about.push(`${whole(refused)} messages refused`);
  put(by("about"), about.filter(Boolean).join(" · "));
}

const LINKS = {
  wait: ["Looking …", () => ""],
  live: ["Live", () => ""],
  broker: ["Broker away", ({ state, detail }) => `The broker is away${from(state.seen)}. ${detail} The page goes on asking.`],
  gateway: ["Gateway away", ({ detail }) => `${detail}${from(since, " What you see is from")} The page goes on asking.`],
  token: ["Token wanted", ({ detail }) => detail],
  forbidden: ["Not allowed", ({ detail }) => detail],
};

function from(seconds, words = ": what you see is from") {
  return seconds ? `${words} ${clock(seconds)}${words.startsWith(":") ? "" : "."}` : "";
}

function showLink() {
  const [short, long] = LINKS[latest.link];
  const text = long(latest);
  mark(by("link"), "data-state", paused ? "paused" : latest.link);
  put(by("link-word"), paused && latest.link === "live" ? "Paused" : short);
  mark(by("main"), "data-stale", ["broker", "gateway"].includes(latest.link) ? "" : null);
  document.title = latest.link === "live" ? "minilambda" : `${short} – minilambda`;
  const word = by("word");
  if (word.dataset.text === text) return;
  word.dataset.text = text;
  word.hidden = !text;
  const asks = latest.link === "token" || latest.link === "forbidden";
  const button = make("button", { type: "button", class: "quiet" }, asks ? "Enter a token" : "Try now");
  button.addEventListener("click", () => (asks ? openToken() : live.retry()));
  word.replaceChildren(make("span", {}, text), ...(latest.link === "broker" ? [] : [button]));
}

by("pause").addEventListener("click", () => {
  paused = !paused;
  mark(by("pause"), "aria-pressed", String(paused));
  soon("page", show);
});

const live = new Live(told);
startRunBox();
startJobDialog();
startTokenDialog(() => live.retry());
live.run();
