// The box to run a module or a function in.

import { json } from "/page/api.js";
import { readEnv, splitArgs } from "/page/args.js";
import { by, foreign, make, put, say } from "/page/dom.js";
import { bytes, digest } from "/page/format.js";
import { JobView } from "/page/jobview.js";

const DIGEST = /^sha256:[0-9a-f]{64}$/;
let source = null; // {file}, {digest} or {call}
let view = null;

export function startRunBox() {
  view = new JobView(by("run-view"), { loud: true });
  by("run-form").addEventListener("submit", (event) => {
    event.preventDefault();
    run();
  });
  by("file").addEventListener("change", () => by("file").files[0] && takeFile(by("file").files[0]));
  listenForDrops();
  document.addEventListener("paste", paste);
}

/** A dropped file counts wherever it is dropped: a page that a browser leaves for a file is no help to anyone. */
function listenForDrops() {
  const over = (on) => by("drop").classList.toggle("over", on);
  const files = (event) => event.dataTransfer?.types.includes("Files");
  addEventListener("dragover", (event) => {
    if (!files(event)) return;
    event.preventDefault();
    over(true);
  });
  addEventListener("dragleave", (event) => event.relatedTarget || over(false));
  addEventListener("drop", (event) => {
    over(false);
    if (!files(event)) return;
    event.preventDefault();
    if (event.dataTransfer.files[0]) takeFile(event.dataTransfer.files[0]);
  });
}

function paste(event) {
  const file = event.clipboardData.files[0];
  const text = event.clipboardData.getData("text").trim();
  if (file) takeFile(file);
  else if (DIGEST.test(text) && !event.target.closest?.("input, textarea")) choose({ digest: text }, digest(text), "kept by the broker");
  else return;
  event.preventDefault();
}

async function takeFile(file) {
  wrong("");
  let head;
  try {
    head = new TextDecoder("latin1").decode(await file.slice(0, 64).arrayBuffer());
  } catch {
    return wrong("The file can't be read.");
  }
  if (!head.startsWith("\0asm")) {
    source = null;
    by("chosen").hidden = true;
    const text = /^\s*(;;[^\n]*\n\s*)*\((module|component)/.test(head) || file.name.endsWith(".wat");
    return wrong(text ? `${file.name} is WebAssembly as text; make it binary first.` : `${file.name} is not WebAssembly: it does not begin with \\0asm.`);
  }
  return choose({ file }, file.name, bytes(file.size));
}

/** Call a function the next time. */
export function takeFunction(name) {
  choose({ call: name }, name, "function");
  by("run-title").scrollIntoView({ block: "start" });
  by("args").focus({ preventScroll: true });
}

function choose(what, name, about) {
  wrong("");
  const called = Boolean(what.call);
  if (called !== Boolean(source?.call)) by("timeout").value = called ? "" : "30";
  by("timeout").placeholder = called ? "as deployed" : "";
  by("memory").disabled = called;
  source = what;
  by("chosen").hidden = false;
  by("chosen").replaceChildren(foreign(name), make("span", { class: "note" }, about));
  say(`Chosen: ${name}`);
}

function form() {
  const options = {};
  const args = splitArgs(by("args").value);
  const env = readEnv(by("env").value);
  if (args.length) options.args = args;
  if (Object.keys(env).length) options.env = env;
  if (by("timeout").value) options.timeout = Number(by("timeout").value);
  if (by("invoke").value.trim()) options.invoke = by("invoke").value.trim();
  if (by("memory").value.trim() && !source.call) options.memory = by("memory").value.trim();
  const body = new FormData();
  if (source.call) body.set("function", source.call);
  else body.set("wasm", source.file || source.digest);
  body.set("stdin", new Blob([by("stdin").value]), "stdin"); // as text, a form would change its line ends
  body.set("options", JSON.stringify(options));
  return body;
}

async function run() {
  wrong("");
  if (!source) {
    wrong("Choose a .wasm file first.");
    return by("file").focus();
  }
  const start = by("start");
  start.disabled = true;
  put(start, "Sending …");
  try {
    const { value } = await json("/jobs", { method: "POST", body: form() });
    by("outcome").hidden = false;
    say("The job is accepted.");
    view.show(value.job_id);
  } catch (error) {
    wrong(error.message);
  } finally {
    start.disabled = false;
    put(start, "Run");
    if (document.activeElement === document.body) start.focus({ preventScroll: true });
  }
  return null;
}

function wrong(text) {
  by("run-fault").hidden = !text;
  put(by("run-fault"), text);
}
