// Everything on the page is made of nodes and text here, so that no name, argument or output can be markup.

/** An element. `attributes` with null, undefined or false are left out; children are nodes or text. */
export function make(name, attributes = {}, ...children) {
  const node = document.createElement(name);
  return dress(node, attributes, children);
}

/** The same for SVG. */
export function draw(name, attributes = {}, ...children) {
  return dress(document.createElementNS("http://www.w3.org/2000/svg", name), attributes, children);
}

function dress(node, attributes, children) {
  for (const [key, value] of Object.entries(attributes)) {
    if (value === null || value === undefined || value === false) continue;
    node.setAttribute(key, value === true ? "" : String(value));
  }
  node.append(...children.filter((child) => child !== null && child !== undefined && child !== ""));
  return node;
}

/** The element with this id. */
export function by(id) {
  return document.getElementById(id);
}

/** Set text only where it changes: a page that stays as it is costs nothing, and a selection in it lives on. */
export function put(node, text) {
  if (node.textContent !== text) node.textContent = text;
}

/** Set an attribute only where it changes; null takes it away. */
export function mark(node, name, value) {
  if (value === null) {
    if (node.hasAttribute(name)) node.removeAttribute(name);
  } else if (node.getAttribute(name) !== String(value)) {
    node.setAttribute(name, value);
  }
}

/** Text from elsewhere, kept apart from what stands around it, whatever direction it is written in. */
export function foreign(text, attributes = {}) {
  return make("bdi", attributes, clean(text));
}

/** Text with control characters and direction overrides as visible signs, so that a name can't disguise itself. */
export function clean(text) {
  // eslint-disable-next-line no-control-regex
  return String(text).replace(/[\u0000-\u001f\u007f-\u009f\u200b\u200e\u200f\u2028-\u202e\u2060\u2066-\u2069\ufeff]/g, "\ufffd");
}

const waiting = new Map();

/** Do `work` before the next picture, once, however often it is asked for under this key. */
export function soon(key, work) {
  if (waiting.size === 0) requestAnimationFrame(flush);
  waiting.set(key, work);
}

function flush() {
  const works = [...waiting.values()];
  waiting.clear();
  for (const work of works) work();
}

/** Say it to those who listen to the page instead of looking at it. */
export function say(text) {
  put(by("said"), text);
}
