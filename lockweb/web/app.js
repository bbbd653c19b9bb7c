// The page: what the address says it shows, kept up to date by the stream.

import { bdi, byId, setText, duration, clockText, momentText, momentLink, plural } from "./dom.js";
import { store, now, follow } from "./live.js";
import { drawLocks, drawContended, showAllRows } from "./locks.js";
import { Timeline } from "./timeline.js";
import { noAudit, showMoment, showTarget } from "./views.js";

const params = new URLSearchParams(location.search);
const target = params.get("target");
const at = params.has("at") ? Date.parse(params.get("at")) || null : null;
const search = byId("q"), status = byId("status"), banner = byId("banner");
const lanes = 40, liveWindow = 900e3;

search.value = params.get("q") ?? "";
const query = () => search.value.trim().toLowerCase();

let view = null, line = null, recordsSeen = "";

function drawLine() {
  const q = query(), t = now();
  const records = [...store.records.values()];
  const has = new Set(records.map((r) => `${r.target}\n${r.pid}\n${r.acquired}`));
  // Locks that were taken before the history that is shown begins.
  for (const [id, l] of store.locks) {
    if (l.kind === "audited" && !has.has(`${l.target}\n${l.pid}\n${l.since}`)) {
      records.push({ id, target: l.target, owner: l.owner, shared: l.shared, fence: l.fence, pid: l.pid, client: l.client, state: "held", acquired: l.since });
    }
  }
  const shown = q ? records.filter((r) => `${r.target}\n${r.owner}\n${r.pid}`.toLowerCase().includes(q)) : records;
  const empty = byId("line-empty");
  let why = "";
  if (!store.known) why = "Waiting for the first look at the server …";
  else if (store.head.audit === "none") why = noAudit;
  else if (store.head.audit) why = "The history cannot be read: " + store.head.audit;
  else if (store.head.trouble && !records.length) why = "Nothing is known yet: the server has not answered.";
  else if (!shown.length) why = q && records.length ? "None of the holds of the last 15 minutes fits the search." : "The audit has no hold of the last 15 minutes. An older one is found by its target, or by its moment.";
  setText(empty, why);
  empty.hidden = !why;
  byId("line").hidden = Boolean(why);
  if (why) return setText(byId("line-note"), "");
  line ??= new Timeline(byId("line"), lanes);
  // With many holds the window is the time that those have which are known.
  const full = store.records.size >= 500;
  const first = Math.min(...[...store.records.values()].map((r) => r.acquired));
  const from = full ? first : Math.max(t - liveWindow, Math.min(...shown.map((r) => r.acquired), t - 60e3) - 1000);
  const drawn = line.draw(shown, from, t, t);
  const parts = [full ? `the newest ${store.records.size} holds, since ${clockText(first)}` : `since ${momentText(from)}`];
  if (drawn.shown < drawn.targets) parts.push(`${drawn.shown} of ${plural(drawn.targets, "target", "targets")}, those with the most holds; the search finds the others`);
  setText(byId("line-note"), parts.join("; "));
}

function drawStatus() {
  if (streamLost) return;
  const down = Boolean(store.head.trouble), silent = Date.now() - store.heard;
  status.className = down ? "down" : store.known && silent < 3000 ? "live" : "";
  const news = store.known ? (silent < 3000 ? `live, ${clockText(store.lastNow)}` : `no news for ${duration(silent)}`) : "connecting …";
  setText(status.lastElementChild, down ? `no answer since ${clockText(store.head.trouble_since)}` : news);
  const text = down ? `PostgreSQL does not answer (${store.head.trouble}). Trying again. ${store.goodNow ? `What is shown was so at ${clockText(store.goodNow)}.` : ""}` : "";
  setText(banner, text);
  banner.hidden = !down;
}

function draw() {
  drawStatus();
  if (at !== null) return;
  drawLocks(query(), target);
  if (target === null) {
    drawContended(query());
    drawLine();
    return;
  }
  const mine = JSON.stringify([...store.records.values()].filter((r) => r.target === target).map((r) => [r.id, r.state]));
  if (mine !== recordsSeen && recordsSeen) view.draw();
  recordsSeen = mine;
  view.redraw();
}

let asked = false, streamLost = false;
function redraw() {
  if (asked) return;
  asked = true;
  requestAnimationFrame(() => {
    asked = false;
    draw();
    if (store.known && !document.documentElement.dataset.ready) {
      document.documentElement.dataset.ready = "yes";
      performance.mark("swanlock-ready");
    }
  });
}

if (at !== null) {
  byId("now").hidden = true;
  showMoment(at);
} else if (params.has("at")) {
  byId("view").hidden = false;
  byId("view-title").textContent = "That is no moment";
  byId("view-body").replaceChildren("The address names ", bdi(params.get("at")), ". A moment is like 2006-01-02T15:04:05Z.");
} else if (target !== null) {
  for (const id of ["sums", "line-title", "top-title"]) byId(id).closest("section, dl").hidden = true;
  view = showTarget(target, params);
}

search.addEventListener("input", () => {
  const url = new URL(location);
  if (search.value) url.searchParams.set("q", search.value);
  else url.searchParams.delete("q");
  history.replaceState(null, "", url);
  redraw();
});
byId("find").addEventListener("submit", (event) => {
  event.preventDefault();
  if (at !== null) location.assign("./?" + new URLSearchParams({ q: search.value }));
});
byId("when").addEventListener("submit", (event) => {
  event.preventDefault();
  const t = new Date(byId("at").value).getTime();
  if (t) location.assign(momentLink(t));
});
byId("held-rest").firstElementChild.addEventListener("click", () => {
  showAllRows();
  redraw();
  byId("held-scroll").focus();
});
byId("sort").addEventListener("change", redraw);
addEventListener("keydown", (event) => {
  const typing = event.target.matches("input, select, textarea");
  if (event.key === "/" && !typing && !event.ctrlKey && !event.metaKey) {
    event.preventDefault();
    search.focus();
  } else if (event.key === "Escape" && event.target === search && search.value) {
    search.value = "";
    search.dispatchEvent(new Event("input"));
  }
});
addEventListener("resize", redraw);

// The clocks go on while nothing comes.
setInterval(() => {
  if (!document.hidden && Date.now() - store.heard > 1500) redraw();
}, 1000);

follow(() => {
  streamLost = false;
  redraw();
}, (text, over) => {
  streamLost = true;
  status.className = "down";
  setText(status.lastElementChild, over ? "signed out" : "not live");
  setText(banner, text + (store.known ? clockText(store.lastNow) + "." : "no time at all."));
  banner.hidden = false;
});
redraw();
