"use strict";
// The status page: asks once a second for what has changed, and draws what is in view. Texts from outside are only ever
// set as text.

const MINUTES = 60;
const STATES = [["error", "Error"], ["behind", "Behind"], ["stopped", "Stopped"], ["waiting", "Waiting"], ["ok", "OK"]];
const RANK = Object.fromEntries(STATES.map(([state], number) => [state, number]));
const BADGES = { error: "error", behind: "behind", stopped: "stopped", waiting: "waiting", ok: "ok" };
const PAUSE = 1000; // milliseconds between two looks
const SILENCE = 5000; // after which what is shown counts as old

const $ = (id) => document.getElementById(id);
const rows = new Map(); // id -> {data, li, ...}
const shown = { text: "", state: "", sort: "worst" };
let order = [];
let version = "";
let skew = 0; // seconds by which the server's clock is ahead of ours
let open = null; // id of the row that is open
let detail = null;
let lastAnswer = 0;
let timer = 0;
let started = 0;
let running = true;

// -- small things

function el(tag, props = {}, ...children) {
  const node = document.createElement(tag);
  for (const [name, value] of Object.entries(props)) {
    if (name in node) node[name] = value; else node.setAttribute(name, value);
  }
  node.append(...children);
  return node;
}

function svg(tag, props = {}) {
  const node = document.createElementNS("http://www.w3.org/2000/svg", tag);
  for (const [name, value] of Object.entries(props)) node.setAttribute(name, value);
  return node;
}

function put(node, text) { if (node.textContent !== text) node.textContent = text; }

function state(node, value) { if (node.dataset.state !== value) node.dataset.state = value; }

// What would change the order or the look of a line, or cannot be shown, is written out.
const ODD = /[\u0000-\u001f\u007f-\u009f\u200b-\u200f\u2028-\u202e\u2060-\u2069\ufeff]|[\ud800-\udbff](?![\udc00-\udfff])|(?<![\ud800-\udbff])[\udc00-\udfff]/g;
function clean(text) {
  return text.replace(ODD, (c) => {
    const code = c.charCodeAt(0);
    if (code >= 0xdc80 && code <= 0xdcff) return `\\x${(code - 0xdc00).toString(16)}`;
    return code < 256 ? `\\x${code.toString(16).padStart(2, "0")}` : `\\u${code.toString(16).padStart(4, "0")}`;
  });
}

const now = () => Date.now() / 1000 + skew;

function span(seconds) {
  if (seconds < 0.0005) return "0 ms";
  if (seconds < 1) return `${Math.round(seconds * 1000)} ms`;
  if (seconds < 10) return `${seconds.toFixed(1)} s`;
  if (seconds < 120) return `${Math.round(seconds)} s`;
  if (seconds < 7200) return `${Math.round(seconds / 60)} min`;
  if (seconds < 172800) return `${Math.round(seconds / 3600)} h`;
  return `${Math.round(seconds / 86400)} d`;
}

function ago(at) {
  if (!at) return "—";
  const seconds = Math.max(1, Math.round(now() - at));
  return `${seconds < 10 ? `${seconds} s` : span(seconds)} ago`;
}

const clock = (at) => new Date(at * 1000).toLocaleTimeString([], { hour: "2-digit", minute: "2-digit" });
const day = (at) => new Date(at * 1000).toLocaleString([], { dateStyle: "medium", timeStyle: "medium" });
const many = (n, one, more = `${one}s`) => `${n.toLocaleString("en")} ${n === 1 ? one : more}`;

function size(bytes) {
  let unit = 0;
  while (bytes >= 1000 && unit < 5) { bytes /= 1000; unit += 1; }
  return `${unit && bytes < 10 ? bytes.toFixed(1) : Math.round(bytes)} ${["B", "kB", "MB", "GB", "TB", "PB"][unit]}`;
}

function money(usd) {
  if (usd === 0) return "$0";
  return usd < 0.01 ? "under $0.01" : `$${usd.toFixed(2)}`;
}

// Values of the last hour, oldest first, from what the server keeps up to its newest minute.
function lastHour(values, newest) {
  const found = new Array(MINUTES).fill(0);
  const late = Math.floor(now() / 60) - newest;
  for (let i = 0; i < values.length; i += 1) {
    const place = MINUTES - 1 - late - (values.length - 1 - i);
    if (place >= 0 && place < MINUTES) found[place] = values[i];
  }
  return found;
}

// -- one line

function build(data) {
  const dot = el("span", { className: "dot" });
  const name = el("bdi");
  const badge = el("span", { className: "badge" });
  const dir = el("bdi", { className: "dir" });
  const button = el("button", { className: "db", type: "button" }, dot, el("span", { className: "name" }, name, badge), dir);
  button.setAttribute("aria-expanded", "false");
  const sum = el("div", { className: "sum" }, button);
  const li = el("li", { className: "row" }, sum);
  const row = { data: null, li, sum, button, name, badge, dir, reps: [], why: [], visible: false, more: null, words: "" };
  li.row = row;
  sum.addEventListener("click", () => { if (!String(getSelection())) toggle(row.data.id); });
  watcher.observe(li);
  update(row, data);
  return row;
}

function update(row, data) {
  row.data = data;
  const path = clean(data.path);
  const cut = path.lastIndexOf("/") + 1;
  put(row.name, path.slice(cut));
  put(row.dir, path.slice(0, cut) || "/");
  row.dir.title = path;
  state(row.button, data.state);
  state(row.badge, data.state);
  const said = data.state === "waiting" && data.status !== "ok" ? data.status : BADGES[data.state];
  put(row.badge, said);
  row.button.setAttribute("aria-label", `${path}: ${said}`);
  row.words = [data.path, path, data.error, ...data.replicas.flatMap((r) => [r.name, r.type, r.url, r.error])].join("\n").toLowerCase();
  row.stale = true;
  if (row.visible) draw(row);
}

function repLine() {
  const place = el("span", { className: "place" }, el("b"), el("bdi"));
  const pos = el("span", { className: "mono pos" });
  const spark = svg("svg", { class: "spark", viewBox: "0 0 120 24", preserveAspectRatio: "none", "aria-hidden": "true" });
  spark.append(svg("line", { class: "base", x1: 0, x2: 120, y1: 23.5, y2: 23.5 }), svg("path", { class: "area" }), svg("path", { class: "edge" }));
  const delay = el("span", { className: "cell num" });
  const at = el("span", { className: "cell num soft" });
  return { line: el("div", { className: "rep" }, place, pos, spark, delay, at), place, pos, spark, delay, at, path: null };
}

// Fill in what is in view.
function draw(row) {
  const { data, sum } = row;
  while (row.reps.length > data.replicas.length) row.reps.pop().line.remove();
  while (row.reps.length < data.replicas.length) {
    const rep = repLine();
    row.reps.push(rep);
    sum.append(rep.line);
  }
  row.why.forEach((node) => node.remove());
  row.why = [];
  if (data.error) row.why.push(el("p", { className: "why" }, clean(data.error)));
  data.replicas.forEach((replica, number) => {
    const rep = row.reps[number];
    put(rep.place.firstChild, clean(replica.name));
    put(rep.place.lastChild, clean(replica.url));
    rep.place.title = clean(replica.url);
    const [generation, at] = replica.pos.split("/");
    put(rep.pos, at || "nothing yet");
    rep.pos.title = at ? `generation ${generation}, index ${at.replace(":", ", offset ")}` : "";
    sparkline(rep, replica);
    if (replica.error && replica.error !== data.error) row.why.push(el("p", { className: "why" }, `${clean(replica.name)}: ${clean(replica.error)}`));
  });
  sum.append(...row.why);
  row.stale = false;
  tick(row);
}

function sparkline(rep, replica) {
  if (!replica.delays) { rep.spark.setAttribute("visibility", "hidden"); return; }
  const values = lastHour(replica.delays, replica.minute);
  const top = Math.log(60000 / 10); // 10 ms to a minute: a logarithmic scale
  let area = "M0 24";
  let edge = "";
  values.forEach((ms, i) => {
    const y = ms > 0 ? 23 - 21 * Math.min(1, Math.max(0.06, Math.log(Math.max(ms, 10) / 10) / top)) : 24;
    area += `V${y.toFixed(1)}H${(i + 1) * 2}`;
    edge += ms > 0 ? `M${i * 2} ${y.toFixed(1)}h2` : "";
  });
  area += "V24Z";
  if (rep.path === area) return;
  rep.path = area;
  rep.spark.children[1].setAttribute("d", area);
  rep.spark.children[2].setAttribute("d", edge);
}

// What changes by the passing of time alone.
function tick(row) {
  row.data.replicas.forEach((replica, number) => {
    const rep = row.reps[number];
    if (!rep) return;
    const late = replica.state === "behind" || (replica.state === "error" && replica.lag > 0);
    const last = replica.delay ?? null; // of the last upload; a stopped one has none
    put(rep.delay, late ? span(replica.lag) : last === null ? "—" : span(last));
    rep.delay.title = late ? "age of the oldest commit that is not durable" : "from the oldest commit of the last upload until it was durable";
    rep.delay.classList.toggle("late", late);
    put(rep.at, ago(replica.uploaded));
    rep.at.title = replica.uploaded ? day(replica.uploaded) : "nothing since the start";
  });
}

const watcher = new IntersectionObserver((entries) => {
  for (const entry of entries) {
    const row = entry.target.row;
    row.visible = entry.isIntersecting;
    if (row.visible) { if (row.stale) draw(row); else tick(row); }
  }
}, { rootMargin: "200px" });

// -- one database in full

function toggle(id) {
  const before = open;
  if (before !== null && rows.has(before)) close(rows.get(before));
  open = before === id ? null : id;
  detail = null;
  if (open !== null) {
    const row = rows.get(open);
    row.li.classList.add("open");
    row.button.setAttribute("aria-expanded", "true");
    row.more = el("div", { className: "more" });
    row.more.append(el("p", { className: "soft" }, row.data.state === "stopped" ? "Replication is stopped; litestream start goes on with it." : "Looking …"));
    row.li.append(row.more);
    ask();
  }
}

function close(row) {
  row.li.classList.remove("open");
  row.button.setAttribute("aria-expanded", "false");
  if (row.more) row.more.remove();
  row.more = null;
}

function fact(name, ...value) {
  return el("div", {}, el("dt", {}, name), el("dd", {}, ...value));
}

function showDetail(found) {
  const row = rows.get(open);
  if (!row || !row.more || !found) return;
  const shape = JSON.stringify([found.replicas.map((r) => [r.name, r.commands]), row.data.replicas.length]);
  if (row.more.shape !== shape) { // otherwise what somebody selects or has focused stays
    row.more.shape = shape;
    row.more.replaceChildren(el("dl", { className: "facts" }), ...found.replicas.map(section));
  }
  row.more.firstChild.replaceChildren(
    fact("Generation", el("span", { className: "mono" }, found.generation || "none yet")),
    fact("Copied up to", el("span", { className: "mono" }, row.data.pos.split("/")[1] || "—")),
    fact("Database", size(row.data.size)),
    fact("WAL", size(found.wal_size)),
    fact("Kept for replicas", size(found.spool_bytes)),
    ...(found.pinned_seconds >= 1 ? [fact("WAL pinned by a reader for", span(found.pinned_seconds))] : []),
  );
  found.replicas.forEach((replica, number) => fillSection(row.more.children[number + 1], replica, row.data.replicas[number]));
}

function section(replica) {
  const node = el("section", { className: "detail" },
    el("h3", {}, clean(replica.name), el("span", { className: "soft" })),
    el("div", { className: "charts" }, figure("hour"), figure("range")),
    el("dl", { className: "facts" }),
    el("p", { className: "label" }, replica.commands.length ? "Restore to a new file" : "How to restore it depends on the configuration: see litestream restore -h."));
  for (const command of replica.commands) {
    const button = el("button", { type: "button" }, "Copy");
    button.setAttribute("aria-label", `Copy: ${clean(command)}`);
    button.addEventListener("click", () => copy(button, command));
    node.append(el("div", { className: "command" }, el("code", { tabIndex: 0 }, clean(command)), button));
  }
  return node;
}

function figure(kind) {
  const chart = svg("svg", { class: `chart ${kind}`, viewBox: "0 0 600 60", preserveAspectRatio: "none", role: "img" });
  return el("figure", {}, el("figcaption", {}, el("span"), el("span")), chart, el("div", { className: "axis" }, el("span"), el("span"), el("span")));
}

function fillSection(node, replica, line) {
  const [head, charts, facts] = node.children;
  put(head.lastChild, line ? clean(line.url) : "");
  hour(charts.children[0], replica);
  range(charts.children[1], replica);
  const checked = replica.verified;
  const results = { ok: ["good", "ok"], error: ["bad", "failed"], unknown: ["", "could not tell"] };
  const made = replica.requests ? Object.entries(replica.requests).sort() : [];
  facts.replaceChildren(
    fact("Durable up to", el("span", { className: "mono" }, line && line.pos.split("/")[1] || "—")),
    fact("Missing", line && line.lag_bytes ? `${size(line.lag_bytes)}, ${span(line.lag)}` : "nothing"),
    fact("Snapshots", replica.snapshot_count ? `${replica.snapshot_count} (${size(replica.snapshot_bytes)})` : "none known"),
    fact("Kept for", replica.retention ? span(replica.retention) : "ever"),
    fact("Last verification", ...(checked
      ? [el("span", { className: results[checked.result][0], title: checked.reason }, results[checked.result][1]), ` ${ago(checked.at)}`, checked.reason ? ` (${clean(checked.reason)})` : ""]
      : [replica.validation_interval ? "none since the start" : "off"])),
    fact("Requests since the start", replica.requests ? made.map(([name, n]) => `${n.toLocaleString("en")} ${name}`).join(", ") || "none" : "none: a local store"),
    ...(replica.prices && line && line.cost !== null ? [fact("Their cost, estimated", el("span", { title: `${replica.prices.where}, list prices of ${replica.prices.as_of}` }, `${money(line.cost)} (prices of ${replica.prices.as_of})`))] : []),
  );
}

function hour(node, replica) {
  const [caption, chart, axis] = node.children;
  const bytes = lastHour(replica.bytes, replica.minute);
  const objects = lastHour(replica.objects, replica.minute).reduce((a, b) => a + b, 0);
  const waits = lastHour(replica.delays, replica.minute);
  const top = Math.max(1, ...bytes);
  const longest = Math.max(0, ...waits);
  const nodes = [svg("line", { class: "base", x1: 0, x2: 600, y1: 60, y2: 60 })];
  let wait = "";
  bytes.forEach((n, i) => {
    const height = n ? Math.max(2, 54 * n / top) : 0;
    if (n) nodes.push(svg("rect", { class: "bar", x: i * 10 + 1, width: 8, y: 60 - height, height, rx: 1 }));
    const y = (58 - 54 * Math.min(1, waits[i] / Math.max(longest, 0.001))).toFixed(1);
    wait += waits[i] ? `${i && waits[i - 1] ? "L" : "M"}${i * 10 + (i && waits[i - 1] ? 5 : 1)} ${y}${i && waits[i - 1] ? "" : `L${i * 10 + 5} ${y}`}` : "";
  });
  nodes.push(svg("path", { class: "wait", d: wait }));
  chart.replaceChildren(...nodes);
  const total = bytes.reduce((a, b) => a + b, 0);
  chart.setAttribute("aria-label", `Last hour: ${many(objects, "upload")}, ${size(total)} of WAL, longest delay ${span(longest)}`);
  caption.firstChild.replaceChildren(el("span", { className: "key" }), `Last hour: ${many(objects, "upload")}, ${size(total)}`);
  caption.lastChild.replaceChildren(el("span", { className: "key wait" }), `longest delay ${longest ? span(longest) : "—"}`);
  put(axis.children[0], clock(now() - 3600));
  put(axis.children[1], clock(now() - 1800));
  put(axis.children[2], "now");
}

function range(node, replica) {
  const [caption, chart, axis] = node.children;
  const end = now();
  const from = replica.restorable_from;
  const begin = Math.min(from === null ? end - 3600 : from, end - 60);
  const length = end - begin;
  const x = (at) => 6 + 588 * Math.max(0, at - begin) / length;
  const nodes = [svg("line", { class: "base", x1: 0, x2: 600, y1: 60, y2: 60 })];
  if (from !== null) nodes.push(svg("rect", { class: "range", x: x(from), width: Math.max(2, 594 - x(from)), y: 26, height: 34, rx: 2 }));
  for (const at of replica.snapshots) nodes.push(svg("line", { class: "snap", x1: x(at), x2: x(at), y1: 14, y2: 60 }));
  chart.replaceChildren(...nodes);
  chart.setAttribute("aria-label", from === null ? "Nothing can be restored yet" : `Can be restored to any moment since ${day(from)}; ${many(replica.snapshot_count, "snapshot")}`);
  caption.firstChild.replaceChildren(el("span", { className: "key range" }), from === null ? "Nothing can be restored yet" : `Restorable: any moment of the last ${span(end - from)}`);
  caption.lastChild.replaceChildren(el("span", { className: "key snap" }), many(replica.snapshot_count, "snapshot"));
  put(axis.children[0], from === null ? "" : day(from));
  put(axis.children[1], "");
  put(axis.children[2], "now");
}

async function copy(button, text) {
  let done = true;
  try {
    await navigator.clipboard.writeText(text);
  } catch { // no secure context, or not allowed: the old way
    const area = el("textarea", { value: text, className: "away" });
    document.body.append(area);
    area.select();
    done = document.execCommand("copy");
    area.remove();
    button.focus();
  }
  put(button, done ? "Copied" : "Select it");
  put($("said"), done ? "The command was copied" : "It could not be copied: select it");
  setTimeout(() => { put(button, "Copy"); put($("said"), ""); }, 2000);
}

// -- all of it

function matches(row) {
  return (!shown.state || row.data.state === shown.state) && shown.text.split(/\s+/).every((word) => row.words.includes(word));
}

const newest = (data) => Math.max(0, ...data.replicas.map((replica) => replica.uploaded));
const byName = (a, b) => (a.data.path < b.data.path ? -1 : a.data.path > b.data.path ? 1 : 0);
const ORDERS = {
  worst: (a, b) => RANK[a.data.state] - RANK[b.data.state] || byName(a, b),
  name: byName,
  upload: (a, b) => newest(b.data) - newest(a.data) || byName(a, b),
  size: (a, b) => b.data.size - a.data.size || byName(a, b),
};

function arrange() {
  const list = $("list");
  const wanted = [...rows.values()].sort(ORDERS[shown.sort]);
  const focused = document.activeElement;
  if (wanted.length !== order.length || wanted.some((row, i) => row !== order[i])) {
    let before = list.firstChild;
    for (const row of wanted) { // only what is out of place is moved
      if (row.li === before) before = before.nextSibling;
      else list.insertBefore(row.li, before);
    }
    order = wanted;
    if (focused !== document.activeElement && list.contains(focused)) focused.focus({ preventScroll: true });
  }
  sift();
}

function sift() {
  let count = 0;
  for (const row of order) {
    const hidden = !matches(row);
    if (row.li.hidden !== hidden) row.li.hidden = hidden;
    count += hidden ? 0 : 1;
  }
  put($("count"), count === rows.size ? many(count, "database") : `${count.toLocaleString("en")} of ${many(rows.size, "database")}`);
  $("list").hidden = !count;
  $("empty").hidden = count > 0;
  put($("empty"), rows.size ? "No database matches." : "There are no databases yet.");
}

function summarize() {
  const counts = Object.fromEntries(STATES.map(([name]) => [name, 0]));
  let requests = 0;
  let cost = null;
  let replicas = 0;
  for (const { data } of rows.values()) {
    counts[data.state] += 1;
    for (const replica of data.replicas) {
      replicas += 1;
      requests += replica.requests || 0;
      if (typeof replica.cost === "number") cost = (cost || 0) + replica.cost;
    }
  }
  for (const tile of $("tiles").children) {
    const n = counts[tile.dataset.state];
    put(tile.firstChild, n.toLocaleString("en"));
    tile.dataset.none = String(!n);
  }
  const all = rows.size;
  const bad = counts.error + counts.behind;
  const quiet = counts.stopped + counts.waiting;
  const worst = counts.error ? "error" : counts.behind ? "behind" : quiet || !all ? "waiting" : "ok";
  state($("verdict"), worst);
  put($("headline"), !all ? "No databases yet" : bad ? `${many(bad, "database")} of ${all.toLocaleString("en")} ${bad === 1 ? "needs" : "need"} attention`
    : quiet ? `${many(counts.ok, "database")} of ${all.toLocaleString("en")} safe` : all === 1 ? "The database is safe" : `All ${all.toLocaleString("en")} databases are safe`);
  put($("subline"), bad ? "Commits there are not durable yet; what is wrong is below."
    : quiet ? "The others are stopped, or there is nothing to replicate yet." : all ? `Everything that was committed is in ${replicas === all ? "its replica" : `every one of ${many(replicas, "replica")}`}.` : "");
  document.title = bad ? `(${bad}) Litestream: attention` : "Litestream";
  put($("cost"), requests ? `${many(requests, "request")} to stores since the start${cost === null ? "" : `, about ${money(cost)} (an estimate, by list prices)`}` : "");
  put($("process"), `${running ? "Replicating" : "Starting or shutting down"} since ${day(started)}`);
}

function take(found) {
  skew = found.now - Date.now() / 1000;
  started = found.started;
  running = found.running;
  if (found.reset) {
    const there = new Set(found.databases.map((data) => data.id));
    for (const id of [...rows.keys()]) if (!there.has(id)) drop(id);
  }
  found.removed.forEach(drop);
  for (const data of found.databases) {
    if (rows.has(data.id)) update(rows.get(data.id), data);
    else rows.set(data.id, build(data));
  }
  version = found.version;
  if (found.databases.length || found.removed.length || found.reset) { arrange(); summarize(); }
  for (const row of order) if (row.visible && !row.li.hidden) { sparklines(row); tick(row); }
  if (found.detail && open !== null && found.detail.id === open) showDetail(found.detail);
}

function sparklines(row) {
  const minute = Math.floor(now() / 60);
  if (row.minute === minute) return;
  row.minute = minute;
  row.data.replicas.forEach((replica, number) => row.reps[number] && sparkline(row.reps[number], replica));
}

function drop(id) {
  const row = rows.get(id);
  if (!row) return;
  watcher.unobserve(row.li);
  row.li.remove();
  rows.delete(id);
  if (open === id) open = null;
}

function alive(works) {
  document.body.classList.toggle("lost", !works);
  state($("live"), works ? "ok" : "lost");
  put($("live-text"), works ? "live" : lastAnswer ? `no answer since ${clock(lastAnswer / 1000)}: this is old` : "no answer from the replicator");
}

let asking = false;
let again = false;
async function ask() {
  if (asking) { again = true; return; }
  asking = true;
  clearTimeout(timer);
  try {
    const query = new URLSearchParams({ since: version });
    if (open !== null) query.set("id", open);
    const answer = await fetch(`live.json?${query}`, { cache: "no-store", signal: AbortSignal.timeout(10000) });
    if (!answer.ok) throw new Error(String(answer.status));
    take(await answer.json());
    lastAnswer = Date.now();
    alive(true);
  } catch {
    if (!lastAnswer || Date.now() - lastAnswer > SILENCE) alive(false);
  }
  asking = false;
  if (again) { again = false; ask(); } else if (!document.hidden) timer = setTimeout(ask, PAUSE);
}

// -- what people do

for (const [name, title] of [...STATES].reverse()) {
  const tile = el("button", { className: "tile", type: "button" }, el("b", {}, "0"), el("span", {}, title));
  tile.dataset.state = name;
  tile.dataset.none = "true";
  tile.setAttribute("aria-pressed", "false");
  tile.addEventListener("click", () => {
    shown.state = shown.state === name ? "" : name;
    for (const other of $("tiles").children) other.setAttribute("aria-pressed", String(other.dataset.state === shown.state));
    sift();
  });
  $("tiles").append(tile);
}

$("filter").addEventListener("input", (event) => { shown.text = event.target.value.toLowerCase().trim(); sift(); });
$("sort").addEventListener("change", (event) => { shown.sort = event.target.value; arrange(); });
document.addEventListener("visibilitychange", () => { clearTimeout(timer); if (!document.hidden) ask(); });
document.addEventListener("keydown", (event) => {
  const field = event.target.closest("input, select, textarea");
  if (event.key === "/" && !field && !event.ctrlKey && !event.metaKey) { event.preventDefault(); $("filter").focus(); }
  if (event.key === "Escape" && event.target === $("filter")) { $("filter").value = ""; $("filter").dispatchEvent(new Event("input")); }
  const step = { ArrowDown: 1, ArrowUp: -1 }[event.key];
  if (!step || (field && event.target !== $("filter"))) return;
  const buttons = order.filter((row) => !row.li.hidden).map((row) => row.button);
  const at = buttons.indexOf(document.activeElement);
  if (at < 0 && !field) return;
  event.preventDefault();
  const next = buttons[at + step];
  if (next) next.focus(); else if (step < 0) $("filter").focus();
});
setInterval(() => { if (lastAnswer && Date.now() - lastAnswer > SILENCE && !document.hidden) alive(false); }, 1000);
ask();
