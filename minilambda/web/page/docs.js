"use strict";

// Everything is built from nodes and text, so that no text of the document can be markup.
function make(name, text, attributes) {
  const node = document.createElement(name);
  if (text) node.textContent = text;
  for (const [key, value] of Object.entries(attributes || {})) node.setAttribute(key, value);
  return node;
}

function table(head, rows) {
  const found = make("table");
  const top = found.appendChild(make("tr"));
  for (const text of head) top.append(make("th", text));
  for (const row of rows) {
    const line = found.appendChild(make("tr"));
    row.forEach((text, at) => {
      const cell = line.appendChild(make("td"));
      cell.append(at === 0 ? make("code", text) : text);
    });
  }
  return found;
}

function kind(schema) {
  if (!schema) return "";
  if (schema.$ref) return schema.$ref.split("/").pop();
  if (schema.enum) return schema.enum.join(" | ");
  if (schema.anyOf) return schema.anyOf.map(kind).join(" or ");
  if (schema.type === "array") return `list of ${kind(schema.items)}`;
  return [].concat(schema.type || "anything").join(" or ");
}

function operation(path, method, told) {
  const box = make("details", "", { id: told.operationId });
  const title = box.appendChild(make("summary"));
  title.append(make("code", method.toUpperCase(), { class: "method" }), make("code", path), ` ${told.summary}`);
  if (told.description) box.append(make("p", told.description));
  if (told.parameters.length) {
    box.append(make("h4", "Parameters"));
    box.append(table(["name", "in", "kind", ""], told.parameters.map((each) =>
      [each.name, each.in, kind(each.schema), each.description || ""])));
  }
  for (const [media, { schema }] of Object.entries((told.requestBody || {}).content || {})) {
    box.append(make("h4", `Body: ${media}`));
    if (schema.properties) {
      box.append(table(["member", "kind", ""], Object.entries(schema.properties).map(([name, each]) =>
        [name, kind(each), each.description || ""])));
    }
  }
  box.append(make("h4", "Replies"));
  box.append(table(["status", "", "kind"], Object.entries(told.responses).map(([status, each]) =>
    [status, each.description, Object.entries(each.content || {}).map(([media, { schema }]) =>
      `${media} ${kind(schema)}`).join(", ")])));
  return box;
}

async function show() {
  const told = await (await fetch("/openapi.json")).json();
  const main = document.getElementById("operations");
  const list = document.getElementById("contents").appendChild(make("ul"));
  main.replaceChildren();
  for (const tag of told.tags) {
    list.appendChild(make("li")).append(make("a", tag.name, { href: `#${tag.name}` }));
    main.append(make("h2", `${tag.name}`, { id: tag.name }), make("p", tag.description));
    for (const [path, methods] of Object.entries(told.paths)) {
      for (const [method, each] of Object.entries(methods)) {
        if (each.tags.includes(tag.name)) main.append(operation(path, method, each));
      }
    }
  }
  main.append(make("h2", "Objects", { id: "objects" }));
  for (const [name, schema] of Object.entries(told.components.schemas)) {
    main.append(make("h3", name), table(["member", "kind", ""], Object.entries(schema.properties).map(([member, each]) =>
      [member, kind(each), each.description || ""])));
  }
}

show().catch(() => { document.getElementById("operations").textContent = "The document can't be loaded."; });
