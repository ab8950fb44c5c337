// What a guest writes, as it writes it. However much that is, the page holds a bounded part of it.

import { make, put, soon } from "/page/dom.js";
import { bytes } from "/page/format.js";

const LIMIT = 200000; // characters that are shown, the last ones
const PIECES = 2000; // nodes, at most

export class Output {
  constructor(host) {
    this.cutWord = make("p", { class: "note", hidden: true });
    this.box = make("pre", { class: "output", role: "log", tabindex: "0", "aria-live": "off", "aria-label": "Output" });
    this.sizes = make("p", { class: "note" });
    host.append(this.cutWord, this.box, this.sizes);
    this.clear(0);
  }

  clear(attempt) {
    this.attempt = attempt;
    this.decoders = { stdout: new TextDecoder(), stderr: new TextDecoder() };
    this.size = { stdout: 0, stderr: 0 }; // bytes so far
    this.waiting = []; // pieces that are not shown yet
    this.waitingLength = 0; // their characters
    this.shown = 0; // characters in the box
    this.cut = false;
    this.over = false;
    this.box.replaceChildren();
    this.later();
  }

  /** Take in one event of the stream. */
  add(stream, { attempt, size, text, base64 }) {
    if (attempt > this.attempt) this.clear(attempt);
    const data = base64 === undefined ? new TextEncoder().encode(text) : unpack(base64);
    this.size[stream] += size;
    this.hold(stream, this.decoders[stream].decode(data, { stream: true }));
  }

  /** No more will come: what is left of a character is told as it is. */
  end() {
    this.over = true;
    this.later();
    for (const stream of ["stdout", "stderr"]) this.hold(stream, this.decoders[stream].decode());
  }

  hold(stream, text) {
    if (!text) return;
    this.waiting.push([stream, text]);
    this.waitingLength += text.length;
    while (this.waitingLength - this.waiting[0][1].length > LIMIT) {
      this.waitingLength -= this.waiting.shift()[1].length;
      this.cut = true;
    }
    this.later();
  }

  later() {
    soon(this, () => this.show());
  }

  show() {
    const follow = this.box.scrollTop + this.box.clientHeight >= this.box.scrollHeight - 8;
    for (const [stream, text] of this.waiting) {
      const last = this.box.lastChild;
      if (last?.className === stream && last.textContent.length < 8192) last.firstChild.appendData(visible(text));
      else this.box.append(make("span", { class: stream }, visible(text)));
      this.shown += text.length;
    }
    this.waiting = [];
    this.waitingLength = 0;
    while (this.box.childNodes.length > 1 && (this.shown > LIMIT || this.box.childNodes.length > PIECES)) {
      this.shown -= this.box.firstChild.textContent.length;
      this.box.firstChild.remove();
      this.cut = true;
    }
    if (follow) this.box.scrollTop = this.box.scrollHeight;
    this.cutWord.hidden = !this.cut;
    put(this.cutWord, "Only the end is shown here; the whole can be saved when the job has ended.");
    const told = Object.entries(this.size).filter(([, size]) => size).map(([name, size]) => `${name} ${bytes(size)}`);
    put(this.sizes, told.join(" · ") || (this.over ? "No output." : "No output so far."));
    this.box.hidden = this.shown === 0;
  }
}

/** Control characters as signs that are seen; lines and tabs stay. */
function visible(text) {
  // eslint-disable-next-line no-control-regex
  return text.replace(/\r\n/g, "\n").replace(/[\u0000-\u0008\u000b-\u001f]/g, (sign) => String.fromCharCode(0x2400 + sign.charCodeAt(0)));
}

function unpack(text) {
  return Uint8Array.from(atob(text), (sign) => sign.charCodeAt(0));
}
