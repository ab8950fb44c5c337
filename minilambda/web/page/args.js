// Arguments in one line, as a shell takes them: quotes keep blanks, a backslash keeps the next character.

/** The arguments. Raises `SyntaxError` where a quote is not closed. */
export function splitArgs(line) {
  const found = [];
  let word = null;
  let quote = "";
  for (let at = 0; at < line.length; at += 1) {
    const sign = line[at];
    if (sign === "\\" && quote !== "'" && at + 1 < line.length) {
      at += 1;
      word = (word ?? "") + line[at];
    } else if (quote) {
      if (sign === quote) quote = "";
      else word += sign;
    } else if (sign === '"' || sign === "'") {
      quote = sign;
      word ??= "";
    } else if (/\s/.test(sign)) {
      if (word !== null) found.push(word);
      word = null;
    } else {
      word = (word ?? "") + sign;
    }
  }
  if (quote) throw new SyntaxError(`The arguments have a ${quote} that is not closed.`);
  if (word !== null) found.push(word);
  return found;
}

/** NAME=value lines as an object. Raises `SyntaxError`. */
export function readEnv(text) {
  const found = {};
  for (const line of text.split("\n")) {
    if (!line.trim()) continue;
    const cut = line.indexOf("=");
    if (cut < 1) throw new SyntaxError(`${line.slice(0, 40)} is not NAME=value.`);
    found[line.slice(0, cut).trim()] = line.slice(cut + 1);
  }
  return found;
}
