// States and codes in words.

export const CODES = {
  deadline_exceeded: "time limit",
  out_of_memory: "out of memory",
  output_limit: "too much output",
  stack_overflow: "stack overflow",
  trap: "trap",
  invalid_module: "not valid wasm",
  unknown_import: "unknown import",
  unknown_import_called: "unknown import called",
  unknown_export: "unknown export",
  bad_arguments: "wrong arguments",
  compile_limit: "too long to compile",
  unsupported: "not offered there",
  runner_crashed: "runner crashed",
  worker_lost: "worker lost",
  poisoned: "lost three workers",
  cancelled: "cancelled",
  queue_timeout: "waited too long",
  job_failed: "failed",
  internal: "internal error",
};

export const TIERS = {
  warm: "warm: in the worker's memory",
  disk: "disk: compiled before",
  compiled: "compiled for this job",
};

/** The outcome of a job row: a kind for its colour and shape, and a word. */
export function outcome(state, code) {
  if (state === "completed") return { kind: "good", text: "completed" };
  if (state === "failed") return { kind: "bad", text: CODES[code] || code || "failed" };
  if (state === "cancelled") return { kind: "off", text: "cancelled" };
  if (state === "queued") return { kind: "wait", text: "queued" };
  return { kind: "busy", text: state === "assigned" ? "at a worker" : state };
}

export function ended(state) {
  return state === "completed" || state === "failed" || state === "cancelled";
}
