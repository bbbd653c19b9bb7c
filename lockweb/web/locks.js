// The table of the locks that are held now.

import { el, bdi, byId, setText, duration, targetName, visible, plural } from "./dom.js";
import { store, now } from "./live.js";
import { askToKill, mayKill } from "./kill.js";

const rows = new Map(); // by the lock's id

// Of many locks the first are shown, until somebody asks for all: each row costs
// its share of every change.
let mostRows = 100;

export function showAllRows() {
  mostRows = Infinity;
}

const mostFresh = 20; // with more that come at once, none stands out

const kindTexts = {
  audited: "", named: "not in the audit",
  keyed: "known by its key only", foreign: "not swanlock's",
};

function session(item) {
  const parts = [item.application && visible(item.application), item.role && visible(item.role), item.client, item.state].filter(Boolean);
  return [`pid ${item.pid}`, parts.join(", ")];
}

// Rows that cannot be seen do not follow the clock until they can.
const watcher = new IntersectionObserver((entries) => {
  for (const { target, isIntersecting } of entries) {
    const row = rows.get(target.rowId);
    if (!row) continue;
    row.seen = isIntersecting;
    if (isIntersecting && row.item) tick(row, now());
  }
}, { root: byId("held-scroll"), rootMargin: "200px" });

function makeRow(id) {
  const cells = { target: el("td", { class: "target" }), owner: el("td"), held: el("td", { class: "brief" }), ttl: el("td", { class: "brief" }), fence: el("td", { class: "number" }), session: el("td"), waiters: el("td") };
  const row = { id, item: null, cells, tr: el("tr", {}, ...Object.values(cells)), list: null, seen: false };
  row.tr.rowId = id;
  watcher.observe(row.tr);
  if (mayKill) {
    row.button = el("button", { class: "row-kill", type: "button", click: () => askToKill(row.item) }, "End …");
    row.tr.append(el("td", { class: "brief" }, row.button));
  }
  return row;
}

function fillRow(row, item) {
  if (row.item === item) return;
  row.item = item;
  row.changed = true;
  row.words = [item.name, item.owner, item.key, item.pid, item.application, item.role, item.client].filter(Boolean).join("\n").toLowerCase();
  const { cells } = row;
  const tags = [item.shared && "reader", kindTexts[item.kind]].filter(Boolean);
  cells.target.replaceChildren(targetName(item.name, Boolean(item.target)), ...(tags.length ? [el("span", { class: "sub" }, ...tags.map((t) => el("span", { class: "tag" }, t)))] : []));
  cells.owner.replaceChildren(item.owner ? bdi(item.owner, { class: "clip" }) : "–");
  cells.fence.replaceChildren(item.fence || "–");
  const [pid, rest] = session(item);
  cells.session.replaceChildren(pid, el("span", { class: "sub" }, el("bdi", {}, rest)));
  row.button?.setAttribute("aria-label", `End session ${item.pid}, which holds ${visible(item.name).slice(0, 100)}`);
  fillWaiters(row, item);
}

function fillWaiters(row, item) {
  if (item.same_line || !item.waiting) {
    row.list = null;
    setText(row.cells.waiters, item.same_line ? "the same line" : "–");
    return;
  }
  if (!row.list) {
    row.summary = el("summary");
    row.list = el("ol");
    row.cells.waiters.replaceChildren(el("details", {}, row.summary, row.list));
  }
  row.list.replaceChildren(...item.waiters.map((w) => {
    const [pid, rest] = session(w);
    return el("li", { value: w.place }, pid, rest ? ", " : "", el("bdi", {}, rest), w.since ? el("span", { class: "sub", "data-since": w.since }) : "");
  }));
  if (item.waiting > item.waiters.length) row.list.append(el("li", {}, `and ${item.waiting - item.waiters.length} more`));
}

// tick writes what changes with the clock alone.
function tick(row, t) {
  const { item, cells } = row;
  setText(cells.held, item.since ? (item.exact ? "" : "> ") + duration(t - item.since) : "–");
  if (item.ttl) {
    const left = item.refreshed + item.ttl - t;
    setText(cells.ttl, `${duration(left)} of ${duration(item.ttl)}`);
    cells.ttl.classList.toggle("late", left < item.ttl / 4);
  } else setText(cells.ttl, "–");
  if (row.list) {
    const first = item.waiters[0].since;
    setText(row.summary, String(item.waiting) + (first ? `, the first for ${duration(t - first)}` : ""));
    if (row.list.parentNode.open) for (const span of row.list.querySelectorAll("[data-since]")) setText(span, `for ${duration(t - span.dataset.since)}`);
  }
}

const orders = {
  name: () => 0, // as they came
  waiting: (a, b) => (b.item.waiting ?? 0) - (a.item.waiting ?? 0),
  since: (a, b) => (a.item.since || Infinity) - (b.item.since || Infinity),
};
const text = new Intl.Collator("en", { numeric: true });
const byName = (a, b) => Number(!a.item.target) - Number(!b.item.target) || text.compare(a.item.name, b.item.name) || (a.item.since ?? 0) - (b.item.since ?? 0) || a.item.pid - b.item.pid;

export function drawLocks(query, only = null) {
  const t = now(), body = byId("held").tBodies[0];
  for (const [id, row] of rows) {
    if (!store.locks.has(id)) {
      row.tr.remove();
      watcher.unobserve(row.tr);
      rows.delete(id);
    }
  }
  const shown = [], fresh = [];
  for (const [id, item] of store.locks) {
    let row = rows.get(id);
    if (!row) {
      rows.set(id, (row = makeRow(id)));
      fresh.push(row.tr);
    }
    fillRow(row, item);
    if (row.words.includes(query) && (only === null || item.name === only)) {
      if (row.seen || row.changed) tick(row, t);
      row.changed = false;
      shown.push(row);
    } else row.tr.remove();
  }
  const order = orders[byId("sort").value];
  shown.sort((a, b) => order(a, b) || byName(a, b));
  const fitting = shown.length;
  for (const row of shown.splice(mostRows)) row.tr.remove();
  let at = body.firstElementChild;
  for (const { tr } of shown) {
    if (tr === at) at = at.nextElementSibling;
    else body.insertBefore(tr, at);
  }
  if (fresh.length <= mostFresh) for (const tr of fresh) tr.classList.add("fresh");
  byId("held").hidden = shown.length === 0;
  const rest = byId("held-rest");
  rest.hidden = fitting === shown.length;
  setText(rest.firstElementChild, `Show the other ${plural(fitting - shown.length, "lock", "locks")}`);
  explain(fitting, query, only);
  drawStray(t);
  drawSums(t);
}

function explain(shown, query, only) {
  const { head } = store, empty = byId("held-empty");
  let why = "", note = "";
  if (shown === 0) {
    if (!store.known) why = "Waiting for the first look at the server …";
    else if (head.trouble && store.locks.size === 0) why = "Nothing is known yet: the server has not answered.";
    else if (only !== null) why = "Nobody holds this lock now.";
    else if (query && store.locks.size) why = `None of the ${plural(store.locks.size, "lock", "locks")} that are held has “${visible(query).slice(0, 100)}” in its target, owner or session.`;
    else why = "No lock is held, in any database of this server.";
  } else if (query) note = `${shown} of ${plural(head.locks, "lock", "locks")}`;
  if (head.shown < head.locks) note += (note ? "; " : "") + `the ${head.shown.toLocaleString("en")} with the most waiters, then the oldest, of ${head.locks.toLocaleString("en")}`;
  setText(empty, why);
  empty.hidden = !why;
  byId("held-scroll").hidden = shown === 0;
  setText(byId("held-note"), note);
}

function drawStray(t) {
  const box = byId("stray");
  box.hidden = store.waiters.size === 0;
  box.querySelector("ul").replaceChildren(...[...store.waiters.values()].map((w) => {
    const [pid, rest] = session(w);
    return el("li", {}, bdi(w.name), `: ${pid}, `, el("bdi", {}, rest), w.since ? `, for ${duration(t - w.since)}` : "");
  }));
}

function drawSums(t) {
  let hold = 0, wait = 0;
  for (const item of store.locks.values()) {
    if (item.since) hold = Math.max(hold, t - item.since);
    for (const w of item.waiters ?? []) if (w.since) wait = Math.max(wait, t - w.since);
  }
  for (const w of store.waiters.values()) if (w.since) wait = Math.max(wait, t - w.since);
  setText(byId("sum-locks"), store.head.locks.toLocaleString("en"));
  setText(byId("sum-waiters"), store.head.waiters.toLocaleString("en"));
  setText(byId("sum-wait"), wait ? duration(wait) : "–");
  setText(byId("sum-hold"), hold ? duration(hold) : "–");
}

export function drawContended(query) {
  const list = [...store.contended.values()].filter((c) => c.target.toLowerCase().includes(query)).sort((a, b) => a.rank - b.rank);
  const t = now(), known = new Set([...store.records.values()].map((r) => r.target));
  for (const item of store.locks.values()) if (item.target) known.add(item.target);
  byId("top").hidden = list.length === 0;
  byId("top").tBodies[0].replaceChildren(...list.map((c) => el("tr", {},
    el("td", { class: "target" }, targetName(c.target, known.has(c.target))),
    el("td", { class: "number" }, String(c.waiting)), el("td", { class: "brief" }, c.longest ? duration(t - c.longest) : "–"),
    el("td", { class: "number" }, String(c.handovers)), el("td", { class: "number" }, String(c.holds)), el("td", { class: "number" + (c.lost ? " bad" : "") }, String(c.lost)))));
  byId("top-empty").hidden = list.length > 0;
  setText(byId("top-empty"), "Nobody waits, and no lock was handed over to a waiter.");
}
