// What a link leads to: the history of a target, and who held what at a moment.

import { el, bdi, byId, setText, duration, moment, momentLink, momentText, targetLink, targetName, visible, plural } from "./dom.js";
import { now } from "./live.js";
import { Timeline, spansOf, howEnded } from "./timeline.js";

async function ask(path, query) {
  let answer;
  try {
    answer = await fetch(path + "?" + new URLSearchParams(query));
  } catch {
    throw new Error("swanlock's page server does not answer. Load the page again when it does.");
  }
  const json = await answer.json();
  if (!answer.ok) throw new Error(answer.status === 404 ? noAudit : json.error);
  return json;
}

export const noAudit = "There is no history: this database has no table lock_audit. Run swanlock migrate up, and take the locks with pglock.WithAudit (swanlock run --audit). Until then locks are shown by their keys.";

function start(title, ...children) {
  byId("view").hidden = false;
  byId("view-title").replaceChildren(title);
  byId("view-body").replaceChildren(...children);
}

function recordTable(records, withTarget) {
  const t = now(), head = [withTarget && "Target", "Owner", "From", "To", "For", "Fence", "Session", "How it ended"].filter(Boolean);
  return el("div", { class: "scroll", tabindex: "0", role: "region", "aria-label": "Holds" }, el("table", {}, el("thead", {}, el("tr", {}, ...head.map((h) => el("th", { scope: "col" }, h)))),
    el("tbody", {}, ...spansOf(records, t).reverse().map((s) => el("tr", {},
      withTarget && el("td", { class: "target" }, targetName(s.r.target, true)),
      el("td", {}, bdi(s.r.owner, { class: "clip" }), s.r.shared && el("span", { class: "tag" }, "reader")),
      el("td", { class: "brief" }, moment(s.from)), el("td", { class: "brief" }, s.r.state === "held" ? "–" : moment(s.to)),
      el("td", { class: "brief" }, duration(s.to - s.from)), el("td", { class: "brief" }, s.r.fence || "–"),
      el("td", { class: "brief" }, `pid ${s.r.pid}`, el("span", { class: "sub" }, s.r.client || "")),
      el("td", { class: s.look === "lost" || s.look === "orphaned" ? "bad" : "" }, howEnded(s)))))));
}

const spans = { "15 minutes": 900, hour: 3600, day: 86400, week: 604800, month: 2678400 };

// showTarget shows a target's history, and returns what shows it anew.
export function showTarget(target, params) {
  const length = Number(params.get("last")) || 3600;
  const choices = el("ul", { class: "links", "aria-label": "How much of the history" }, ...Object.entries(spans).map(([name, s]) =>
    el("li", {}, el("a", { href: targetLink(target) + "&last=" + s, "aria-current": s === length && "true" }, `the last ${name}`))), el("li", {}, el("a", { href: "./" }, "all locks")));
  const box = el("div"), table = el("div"), note = el("p", { class: "empty", role: "status" }, "Reading the history …");
  start(bdi(target), choices, box, note, table);
  document.title = `${visible(target).slice(0, 60)} – swanlock`;
  let line = null, busy = false, again = false, records = [];
  async function draw() {
    if (busy) return void (again = true);
    busy = true;
    try {
      const to = Date.now() + 60000, from = Date.now() - length * 1000;
      const answer = await ask("api/history", { target, from, to });
      records = answer.records;
      const more = answer.next ? ` These are the newest ${records.length}; there are more.` : "";
      setText(note, records.length ? `${plural(records.length, "hold", "holds")}, the newest first.${more}` : "The audit has no hold of this target in that time.");
      table.replaceChildren(...(records.length ? [recordTable(records, false)] : []));
      redraw();
    } catch (error) {
      setText(note, error.message);
    }
    busy = false;
    if (again) {
      again = false;
      setTimeout(draw, 1000);
    }
  }
  function redraw() {
    if (!records.length) return;
    line ??= new Timeline(box, 1);
    const t = now(), first = Math.min(...records.map((r) => r.acquired));
    line.draw(records, Math.max(t - length * 1000, first - Math.max(1000, (t - first) / 50)), t, t);
  }
  draw();
  return { draw, redraw };
}

// showMoment shows what was held then, and what happened around it.
export async function showMoment(at) {
  const shift = (ms, text) => el("li", {}, el("a", { href: momentLink(at + ms) }, text));
  const links = el("ul", { class: "links", "aria-label": "Other moments" }, shift(-3600e3, "an hour before"), shift(-60e3, "a minute before"), shift(-1e3, "a second before"),
    shift(1e3, "a second later"), shift(60e3, "a minute later"), shift(3600e3, "an hour later"), el("li", {}, el("a", { href: "./" }, "now")));
  const iso = new Date(at).toISOString(), note = el("p", { class: "empty", role: "status" }, "Reading the history …"), box = el("div"), table = el("div");
  start(el("span", {}, "Held at ", el("time", { datetime: iso, title: iso }, momentText(at, true))), links, note, table, el("h2", {}, "Five minutes around it"), box);
  document.title = `Held at ${momentText(at)} – swanlock`;
  byId("at").value = new Date(at - new Date(at).getTimezoneOffset() * 60000).toISOString().slice(0, 19);
  try {
    const answer = await ask("api/held", { at });
    setText(note, answer.total ? `${plural(answer.total, "lock was", "locks were")} held.` + (answer.total > answer.records.length ? ` The first ${answer.records.length} are shown.` : "") : "By the audit, no lock was held at that moment.");
    if (answer.records.length) table.replaceChildren(recordTable(answer.records, true));
    const from = at - 150e3, to = at + 150e3;
    const around = await ask("api/history", { from, to });
    const has = new Set(around.records.map((r) => r.id));
    const records = around.records.concat(answer.records.filter((r) => !has.has(r.id)));
    if (records.length) new Timeline(box, 60).draw(records, from, to, now(), at);
    else box.append(el("p", { class: "empty" }, "Nothing was held in that time."));
  } catch (error) {
    setText(note, error.message);
  }
}
