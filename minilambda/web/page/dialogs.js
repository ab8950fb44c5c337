// What opens over the page: a job from near, and the question for a token.

import { onTokenWanted, useToken } from "/page/api.js";
import { by, foreign, make, put } from "/page/dom.js";
import { JobView } from "/page/jobview.js";

let view = null;

export function startJobDialog() {
  const dialog = by("job");
  view = new JobView(by("job-view"), { story: true });
  by("job-close").addEventListener("click", () => dialog.close());
  dialog.addEventListener("click", (event) => event.target === dialog && dialog.close()); // beside it
  dialog.addEventListener("close", () => {
    view.leave();
    if (document.activeElement === document.body) by("jobs-title").focus({ preventScroll: true }); // its row is gone
  });
}

/** Show a job of the list. */
export function openJob(row) {
  const list = make("dl", { class: "facts" });
  for (const [name, text] of [["Function", row.function], ["Module", row.module], ["Group", row.group], ["Client", row.principal]]) {
    if (text) list.append(make("div", {}, make("dt", {}, name), make("dd", {}, foreign(text))));
  }
  by("job-about").replaceChildren(list);
  view.show(row.job);
  by("job").showModal();
  by("job-title").focus();
}

/** `tried()` is called when there is another token. */
export function startTokenDialog(tried) {
  const dialog = by("token");
  const first = by("token-word").cloneNode(true);
  onTokenWanted((refused) => {
    if (refused) put(by("token-word"), "The gateway does not take this token. Another one?");
    else by("token-word").replaceChildren(...first.cloneNode(true).childNodes);
    openToken();
  });
  by("token-form").addEventListener("submit", (event) => {
    event.preventDefault();
    useToken(by("token-text").value.trim(), by("token-keep").checked);
    by("token-text").value = "";
    dialog.close();
    tried();
  });
  by("token-later").addEventListener("click", () => dialog.close());
}

export function openToken() {
  if (!by("token").open) by("token").showModal();
  by("token-text").focus();
}
