// The live page: what each kind of server-sent event shows. draw.js comes before this.

const latest = {};
let paused = false;

// --- sections ------------------------------------------------------------------------------

const sum = (values) => values.reduce((total, value) => total + value, 0);

const show = {
  cost(data) {
    if (data.error) return;
    const notes = [];
    byId("cost").textContent = money(data.today);
    if (data.source === "ledger") {
      const mean = data.mean;
      const days = data.known_days === 1 ? "yesterday" : `mean of ${data.known_days} days`;
      const times = mean ? ` (${(data.today / mean).toFixed(1)}×)` : "";
      notes.push(mean === null ? "no earlier day in the ledger" : `${days} ${money(mean)}${times}`);
      columns(byId("cost-plot"), [...data.days, data.today], `Cost of the last 8 days, today ${money(data.today)}`, "col", 7, mean);
    } else {
      notes.push(`of this process since ${clock(data.since)}`);
      notes.push(data.ledger ? data.ledger : "no ledger, so no earlier days");
    }
    if (data.unpriced) notes.push(`${num(data.unpriced)} calls without a known price`);
    put(byId("cost-note"), notes.join("; "));
  },

  pulse(data) {
    if (data.error) return;
    const hour = sum(data.calls);
    const shown = now() - data.since < 60 ? -1 : -2; // the last whole minute, once there is one
    byId("tokens").textContent = num(data.tokens.at(shown));
    put(byId("tokens-note"), `${num(data.tokens.at(-1))} this minute; ${num(sum(data.tokens))} in the hour`);
    columns(byId("tokens-plot"), data.tokens, `Tokens by minute, ${num(sum(data.tokens))} in the last hour`);
    byId("calls").textContent = num(data.calls.at(shown));
    put(byId("calls-note"), `${num(data.calls.at(-1))} this minute; ${num(hour)} in the hour`);
    columns(byId("calls-plot"), data.calls, `Calls by minute, ${num(hour)} in the last hour`);
    const refused = sum(data.refused);
    const cut = sum(data.cuts);
    byId("stopped").textContent = num(refused + cut);
    put(byId("stopped-note"), `${num(refused)} refused, ${num(cut)} cut in the last hour`);
    const both = data.refused.map((value, place) => value + data.cuts[place]);
    columns(byId("stopped-plot"), both, `Refusals and cuts by minute, ${num(refused + cut)} in the last hour`, "stop");
  },

  streams(data) {
    empty("streams", data);
    if (data.error) return fill("streams-rows", []);
    const notes = [`${num(data.open)} open`];
    if (data.open > data.rows.length) notes.push(`the ${data.rows.length} nearest to their budget are shown`);
    if (data.waiting) notes.push(`${num(data.waiting)} waiting for a budget`);
    put(byId("streams-note"), notes.join("; "));
    fill("streams-rows", data.rows, (row) => make("li", "",
      make("div", "top", who(row), make("span", "sum")), bar(["used", "held"]),
      make("div", "under", make("span", "", `${num(row.input)} in · `, moment("since", row.at)), make("span", "rate"))), stream);
    steady(byId("streams-rows"));
    return undefined;
  },

  windows(data) {
    empty("windows", data);
    if (data.error) return fill("windows-rows", []);
    const more = data.known > data.rows.length;
    put(byId("windows-note"), more ? `the ${data.rows.length} tightest of ${num(data.known)}` : "");
    fill("windows-rows", data.rows, (row) => make("li", "window",
      make("div", "", make("div", "top", scope(row), make("span", "sum")), bar(["used", "held"]),
        make("div", "under", make("span", "figures-of"), make("span", "when"))), make("div", "burn")), budget);
    return undefined;
  },

  incidents(data) {
    empty("incidents", data);
    if (data.error) return fill("incidents-rows", []);
    put(byId("incidents-note"), `${num(data.refused)} refused, ${num(data.cuts)} cut since ${clock(data.since)}`);
    const rows = data.rows.map((row) => ({ ...row, id: JSON.stringify([row.kind, row.tenant, row.user, row.feature, row.model, row.endpoint, row.reason]) }));
    fill("incidents-rows", rows, () => make("li"), (node, row) => {
      if (node.dataset.state === `${row.at} ${row.times}`) return;
      node.dataset.state = `${row.at} ${row.times}`;
      const line = make("div", "top", make("span", "", make("span", row.kind === "warned" ? "mark warn" : "mark stop", NAMES[row.kind]), " ", who(row)));
      line.append(make("span", "small", moment("since", row.at, "", " ago")));
      const times = row.times > 1 ? `${num(row.times)} times, last: ` : "";
      node.replaceChildren(line, make("div", "under", make("span", "", times, ...reason(row)), room(row)));
    });
    announce(data);
    return undefined;
  },

  spenders(data) {
    const by = document.querySelector("#by input:checked").value;
    const ranked = data.error ? [] : data.by[by];
    empty("spenders", { error: data.error, rows: ranked });
    document.querySelector("#spenders table").hidden = !ranked.length;
    byId("by-name").textContent = by[0].toUpperCase() + by.slice(1);
    const priced = data.total > 0;
    const tokens = sum(ranked.map((row) => row.tokens));
    fill("spenders-rows", ranked.map((row) => ({ ...row, id: JSON.stringify(row.name) })), () =>
      make("tr", "", make("td", "", make("span"), bar(["used"])), make("td"), make("td"), make("td")), (node, row) => {
      const [name, cost, took, calls] = node.children;
      put(name.firstChild, row.name === null ? "not named" : foreign(row.name));
      stretch(name.lastChild, priced ? row.cost / data.total : row.tokens / Math.max(1, tokens));
      put(cost, money(row.cost));
      put(took, num(row.tokens));
      put(calls, num(row.calls));
    });
  },

  talks(data) {
    empty("talks", data);
    if (data.error) return fill("talks-rows", []);
    fill("talks-rows", data.rows, (row) => make("li", "talk", make("div", "", who(row), make("div", "under", make("span"), make("span"))), make("div")), (node, row) => {
      if (node.dataset.state === String(row.at)) return;
      node.dataset.state = String(row.at);
      const last = row.prompts.at(-1);
      const [figures, part] = node.querySelector(".under").children;
      put(figures, `${num(row.first)} → `, make("b", "", num(last)), ` tokens, ${num(row.calls)} calls`);
      put(part, row.window ? `${Math.round((last / row.window) * 100)}% of its window` : "");
      rising(node.lastChild, row.prompts, `Input tokens call by call, from ${num(row.first)} to ${num(last)}`);
    });
    return undefined;
  },
};

const CODES = {
  context_length_exceeded: "does not fit the context window", request_budget_exceeded: "over the budget of one request",
  budget_exceeded: "the budget is used up", budget_store_unavailable: "the budget store is out of reach",
  invalid_request: "not a request that can be guarded",
};
const NAMES = { refused: "Refused", cut: "Cut", warned: "Warned" };

const speeds = new WeakMap();

function stream(node, row) {
  const produced = row.output ?? 0;
  const limit = Math.max(1, row.limit);
  const figures = node.querySelector(".sum");
  if (row.output === null) put(figures, make("span", "", row.limit ? `waiting; may produce ${num(row.limit)}` : "waiting"));
  else put(figures, make("b", "", num(produced)), make("span", "", ` of ${num(row.limit)}`));
  node.classList.toggle("tight", produced > row.limit * 0.9);
  stretch(node.querySelector(".bar"), produced / limit, Math.max(0, Math.min(row.held, row.limit) - produced) / limit);
  const before = speeds.get(node);
  const at = now();
  if (!before || before.produced > produced) speeds.set(node, { produced, at, speed: null });
  else if (at - before.at > 0.8) {
    const speed = (produced - before.produced) / (at - before.at);
    const smooth = before.speed === null ? speed : before.speed * 0.6 + speed * 0.4;
    speeds.set(node, { produced, at, speed: smooth });
    put(node.querySelector(".rate"), `${num(smooth)} tokens/s`);
  }
}

function steady(list) { // streams come and go: what is below stays where it is
  const height = Math.min(list.offsetHeight, 480);
  if (height > (parseFloat(list.style.minHeight) || 0)) list.style.minHeight = `${height}px`;
}

function scope(row) {
  const made = make("span", "who");
  const names = Object.entries(row.scope).map(([name, value]) => `${name} ${value || "not named"}`);
  made.append(names.length ? foreign(names.join(" · ")) : "everyone");
  made.append(" ", make("span", "", foreign(row.soft ? `${row.name}, warns only` : row.name)));
  return made;
}

function budget(node, row) {
  const limit = Math.max(1, row.limit);
  const left = Math.max(0, row.limit - row.used - row.held);
  const unit = UNITS[row.unit] ? ` ${UNITS[row.unit]}` : "";
  put(node.querySelector(".sum"), make("b", "", amount(row.unit, left)), make("span", "", ` left of ${amount(row.unit, row.limit)}${unit}`));
  node.classList.toggle("tight", left < row.limit * 0.2 && left > 0);
  node.classList.toggle("gone", left === 0);
  stretch(node.querySelector(".bar"), row.used / limit, Math.min(row.held, row.limit - Math.min(row.used, row.limit)) / limit);
  put(node.querySelector(".figures-of"), `${amount(row.unit, row.used)} used, ${amount(row.unit, row.held)} held`);
  const when = node.querySelector(".when");
  const runs = pace(row, left);
  const parts = [];
  if (left < row.limit / 100) parts.push(make("span", "warn", left ? "nearly used up" : "used up"));
  else if (runs !== null) parts.push(make("span", "warn", `empty in about ${lasting(runs)}`));
  if (row.resets_at) parts.push(moment("until", row.resets_at, row.calendar ? "resets in " : "next release in "));
  const key = JSON.stringify([row.resets_at, left < row.limit / 100, left === 0, runs === null ? null : lasting(runs)]);
  if (when.dataset.state !== key) {
    when.dataset.state = key;
    when.replaceChildren(...parts.flatMap((part, place) => (place ? ["; ", part] : [part])));
  }
  stepped(node.querySelector(".burn"), row.history, row.limit, `What was left: now ${amount(row.unit, left)}`);
}

function pace(row, left) { // seconds until it is used up, if that is before it is given back
  const recent = row.history.filter(([at]) => at > now() - 600);
  if (recent.length < 3 || !row.span || recent.at(-1)[0] < now() - 120) return null;
  const took = now() - recent[0][0];
  const speed = (row.used - recent[0][2]) / took;
  if (speed <= 0 || took < Math.min(30, row.span / 4)) return null;
  const seconds = left / speed;
  return seconds < (row.resets_at ? row.resets_at - now() : row.span) ? seconds : null;
}

function reason(row) {
  const value = (figure) => (figure === null ? "?" : amount(row.unit, figure));
  if (row.kind === "cut") {
    const allowed = row.limit === null ? "" : `, ${num(row.limit)} allowed`;
    return [`${num(row.output ?? 0)} tokens produced${allowed}`];
  }
  const named = foreign(row.reason === row.code ? CODES[row.code] || row.code || "" : row.reason);
  if (row.limit === null) return [named];
  if (row.kind === "refused" && row.code !== "budget_exceeded") return [named, `: needs ${value(row.requested)}, the limit is ${value(row.limit)}`];
  const asked = row.requested === null ? "" : `${value(row.requested)} asked for, `;
  return [named, `: ${asked}${value(row.used)} used of ${value(row.limit)}`];
}

function room(row) {
  return row.resets_at && row.resets_at > now() ? moment("until", row.resets_at, "room again in ") : make("span");
}

// --- what is said aloud --------------------------------------------------------------------

const said = { refused: null, cuts: null, at: 0 };

function announce(data) {
  if (said.refused === null || data.refused < said.refused || data.cuts < said.cuts) {
    Object.assign(said, { refused: data.refused, cuts: data.cuts });
  }
  const refused = data.refused - said.refused;
  const cut = data.cuts - said.cuts;
  if (refused + cut === 0 || Date.now() - said.at < 10000) return; // once in ten seconds at most
  const parts = [];
  if (refused) parts.push(refused === 1 ? "1 call was refused" : `${refused} calls were refused`);
  if (cut) parts.push(cut === 1 ? "1 stream was cut" : `${cut} streams were cut`);
  byId("news").textContent = parts.join(", ");
  Object.assign(said, { refused: data.refused, cuts: data.cuts, at: Date.now() });
}

// --- the connection ------------------------------------------------------------------------

let source = null;
let retry = null;
let patience = 1000;
let version = null;
let idle = null;

function link(state, text) {
  const node = byId("link");
  if (node.dataset.state === state && node.lastElementChild.textContent === text) return;
  node.dataset.state = state;
  node.lastElementChild.textContent = text;
}

function render(name) {
  show[name](latest[name]);
}

function connect() {
  clearTimeout(retry);
  source = new EventSource("events");
  source.addEventListener("hello", (message) => {
    const data = JSON.parse(message.data);
    if (version !== null && version !== data.version) location.reload();
    version = data.version;
    skew = data.now - Date.now() / 1000;
    patience = 1000;
    link("live", paused ? "Paused" : "Live");
    put(byId("about"), `streamguard ${version}. Streams, calls, refusals and conversations are those of the process that answers; windows are the store’s, for who called lately. Days are UTC.`);
  });
  Object.keys(show).forEach((name) => source.addEventListener(name, (message) => {
    latest[name] = JSON.parse(message.data);
    if (!paused) render(name);
  }));
  source.onerror = () => {
    link("lost", "No connection; trying again");
    if (source.readyState !== EventSource.CLOSED) return; // the browser tries by itself
    retry = setTimeout(connect, patience);
    patience = Math.min(15000, patience * 2);
  };
}

document.addEventListener("visibilitychange", () => { // nobody looks: let the server rest
  clearTimeout(idle);
  if (document.hidden) idle = setTimeout(() => source.close(), 60000);
  else if (source.readyState === EventSource.CLOSED) connect();
});

byId("pause").addEventListener("click", () => {
  paused = !paused;
  byId("pause").setAttribute("aria-pressed", String(paused));
  if (byId("link").dataset.state === "live") link("live", paused ? "Paused" : "Live");
  if (!paused) Object.keys(latest).forEach(render);
});

["tenant", "user", "feature", "model"].forEach((name, place) => {
  const choice = make("input");
  Object.assign(choice, { type: "radio", name: "by", value: name, checked: place === 0 });
  choice.addEventListener("change", () => latest.spenders && render("spenders"));
  byId("by").append(make("label", "", choice, name));
});

document.querySelectorAll(".none").forEach((node) => { node.hidden = true; });
document.querySelector("#spenders table").hidden = true;
setInterval(() => { if (!paused) document.querySelectorAll("[data-kind]").forEach(tell); }, 1000);
connect();
