"use strict";
// Everything shown is put in as text, never as HTML: tenant ids are foreign text.

const byId = (id) => document.getElementById(id);
const whole = new Intl.NumberFormat("en");
const cents = new Intl.NumberFormat("en", { style: "currency", currency: "USD" });
const tiny = new Intl.NumberFormat("en", { style: "currency", currency: "USD", minimumSignificantDigits: 2, maximumSignificantDigits: 2 });
const NANO = 1e9;
let skew = 0; // seconds the server's clock is ahead

// --- words ---------------------------------------------------------------------------------

const num = (amount) => whole.format(Math.round(amount));
const money = (nano) => {
  const dollars = nano / NANO;
  return dollars > 0 && dollars < 0.01 ? tiny.format(dollars) : cents.format(dollars);
};
const amount = (unit, value) => (unit === "cost" ? money(value) : num(value));
const UNITS = { cost: "", tokens: "tokens", input_tokens: "input tokens", output_tokens: "output tokens", requests: "requests", concurrency: "at once" };
const now = () => Date.now() / 1000 + skew;

function lasting(seconds) {
  const s = Math.max(0, Math.round(seconds));
  if (s < 100) return `${s} s`;
  const m = Math.round(s / 60);
  if (m < 100) return `${m} min`;
  const h = Math.floor(m / 60);
  if (h < 48) return m % 60 ? `${h} h ${m % 60} min` : `${h} h`;
  return `${Math.round(h / 24)} days`;
}

const clock = (at) => new Date(at * 1000).toLocaleTimeString([], { hour: "2-digit", minute: "2-digit" });

// --- elements ------------------------------------------------------------------------------

function make(tag, name, ...inside) {
  const made = document.createElement(tag);
  if (name) made.className = name;
  made.append(...inside);
  return made;
}

function foreign(text) { // isolated, so that right-to-left names do not turn the line around
  const made = document.createElement("bdi");
  made.textContent = text;
  return made;
}

function put(node, ...inside) { // leave what is the same alone: selections and readers stay calm
  const fresh = make(node.tagName, "", ...inside);
  if (node.textContent !== fresh.textContent || node.childElementCount !== fresh.childElementCount) {
    node.replaceChildren(...fresh.childNodes);
  }
}

function moment(kind, at, before = "", after = "") { // a time that tick() keeps up to date
  const made = make("span", "", "");
  Object.assign(made.dataset, { kind, at, before, after });
  tell(made);
  return made;
}

function tell(node) {
  const { kind, at, before, after } = node.dataset;
  const seconds = kind === "until" ? at - now() : now() - at;
  const text = before + lasting(seconds) + after;
  if (node.textContent !== text) node.textContent = text;
}

function fill(id, rows, create, update) { // one element a row, found again by its id
  const list = byId(id);
  const had = new Map([...list.children].map((child) => [child.dataset.id, child]));
  rows.forEach((row, place) => {
    const child = had.get(row.id) || create(row);
    had.delete(row.id);
    child.dataset.id = row.id;
    update(child, row);
    if (list.children[place] !== child) list.insertBefore(child, list.children[place] || null);
  });
  had.forEach((child) => child.remove());
}

function empty(section, data) {
  const none = byId(`${section}-none`);
  none.hidden = !data.error && data.rows.length > 0;
  if (!none.dataset.text) none.dataset.text = none.textContent;
  none.textContent = data.error ? `Not to be had just now (${data.error}).` : none.dataset.text;
}

function bar(parts) {
  const made = make("div", "bar", ...parts.map((name) => make("i", name)));
  made.setAttribute("aria-hidden", "true");
  return made;
}

function stretch(node, ...shares) {
  shares.forEach((share, place) => {
    node.children[place].style.width = `${Math.min(100, Math.max(0, share * 100)).toFixed(2)}%`;
  });
}

function who(row) {
  const made = make("span", "who");
  const names = [row.tenant, row.user, row.feature].filter((name) => name !== null && name !== "");
  made.append(names.length ? foreign(names.join(" · ")) : "anonymous");
  if (row.model) made.append(" ", make("span", "", foreign(row.model)));
  return made;
}

// --- plots ---------------------------------------------------------------------------------

function svg(tag, attributes) {
  const made = document.createElementNS("http://www.w3.org/2000/svg", tag);
  Object.entries(attributes).forEach(([name, value]) => made.setAttribute(name, value));
  return made;
}

function plot(box, said, ...shapes) {
  const picture = svg("svg", { viewBox: "0 0 100 40", preserveAspectRatio: "none", role: "img", "aria-label": said });
  picture.append(...shapes);
  box.replaceChildren(picture);
}

const x = (value) => value.toFixed(2);

function columns(box, values, said, name = "col", marked = values.length - 1, line = null) {
  const top = Math.max(...values, line || 0, 1e-9);
  const width = 100 / values.length;
  const shapes = values.map((value, place) => {
    const height = value ? Math.max(1.5, (value / top) * 38) : 0;
    return svg("rect", { class: place === marked && name === "col" ? "col now" : name,
      x: x(place * width), y: x(40 - height), width: x(width * 0.78), height: x(height) });
  });
  shapes.push(svg("path", { class: "base", d: "M0 40H100" }));
  if (line !== null) shapes.push(svg("path", { class: "mean", d: `M0 ${x(40 - (line / top) * 38)}H100` }));
  plot(box, said, ...shapes);
}

function stepped(box, history, limit, said) { // what was left, as it burnt down
  const end = now();
  const start = Math.min(history[0][0], end - 30);
  const at = (time) => x(((time - start) / (end - start)) * 100);
  const level = (left) => x(40 - (Math.max(0, left) / Math.max(1, limit)) * 38);
  let path = `M${at(history[0][0])} ${level(history[0][1])}`;
  history.slice(1).forEach(([time, left]) => { path += `H${at(time)}V${level(left)}`; });
  path += "H100";
  const area = `${path}V40H${at(history[0][0])}Z`;
  plot(box, said, svg("path", { class: "area", d: area }), svg("path", { class: "line", d: path }),
    svg("path", { class: "base", d: "M0 40H100" }));
}

function rising(box, values, said) {
  const top = Math.max(...values, 1);
  const points = values.map((value, place) => `${x((place / Math.max(1, values.length - 1)) * 100)} ${x(40 - (value / top) * 38)}`);
  const path = `M${points.join("L")}`;
  plot(box, said, svg("path", { class: "area", d: `${path}V40H0Z` }), svg("path", { class: "line", d: path }),
    svg("path", { class: "base", d: "M0 40H100" }));
}
