// The picture of who held what when: a lane for each target, a bar for each hold.

import { el, svg, bdi, setText, visible, duration, moment, momentText, momentLink, clockText, targetName, plural } from "./dom.js";

const laneHeight = 26, axisHeight = 22, handoverGap = 50;
const steps = [1, 2, 5, 10, 15, 30, 60, 120, 300, 600, 900, 1800, 3600, 7200, 10800, 21600, 43200, 86400, 172800, 604800, 2592000].map((s) => s * 1000);

// spansOf makes bars of records, and says for each who came next.
export function spansOf(records, now) {
  const spans = records.map((r) => {
    const lost = r.state === "ended" && r.end !== "released";
    const to = r.state === "held" ? now : r.state === "orphaned" ? r.refreshed : r.ended;
    return { r, from: r.acquired, to: Math.max(to, r.acquired), look: lost ? "lost" : r.state, next: null, before: null };
  });
  spans.sort((a, b) => a.from - b.from || Number(a.r.id) - Number(b.r.id));
  const last = new Map();
  for (const s of spans) {
    const before = last.get(s.r.target);
    if (before && before.r.state !== "held" && s.from >= before.to && !(before.r.shared && s.r.shared)) {
      before.next = s;
      s.before = before;
    }
    last.set(s.r.target, s);
  }
  return spans;
}

export function howEnded({ r, to }) {
  const how = {
    held: "held now",
    orphaned: `orphaned: its holder died after ${momentText(to)}, and nobody closed the row`,
    released: "released",
    expired: "lost: its TTL ran out",
    lost: "lost: its session ended",
    killed: r.ended_by ? `killed by ${visible(r.ended_by)}` : "killed",
  };
  const end = r.state === "ended" ? r.end : r.state;
  return (how[end] ?? end) + (r.succeeded ? ", succeeded" : "");
}

function handedOver(s) {
  if (!s.next) return "";
  const gap = s.next.from - s.to;
  return gap <= handoverGap ? `handed over to ${visible(s.next.r.owner)} after ${duration(gap)}` : `next held by ${visible(s.next.r.owner)}, ${duration(gap)} later`;
}

const titleOf = (s) => [visible(s.r.target).slice(0, 200), `${s.r.shared ? "reader " : ""}${visible(s.r.owner)}${s.r.fence ? `, fence ${s.r.fence}` : ""}, pid ${s.r.pid}`,
  `${momentText(s.from, true)}, for ${duration(s.to - s.from)}: ${howEnded(s)}`, handedOver(s)].filter(Boolean).join("\n");

export class Timeline {
  #bars = new Map(); // by the record's id
  #chosen = null;
  #order = [];
  #lanes = new Map();

  constructor(box, most) {
    this.most = most;
    this.labels = el("ol", { "aria-label": "Targets of the timeline" });
    this.svg = svg("svg", { tabindex: "0", role: "group", "aria-label": "Timeline of holds", keydown: (e) => this.#key(e), click: (e) => this.#click(e) });
    this.svg.append(svg("defs", {}, hatch("lost"), hatch("orphan")));
    this.back = svg("g", { "aria-hidden": "true" });
    this.axis = svg("g");
    this.front = svg("g");
    this.marks = svg("g", { "aria-hidden": "true" });
    this.svg.append(this.back, this.axis, this.front, this.marks);
    this.detail = el("div", { class: "detail", role: "status" }, "Point at a hold, or move to it with the arrow keys, to see its owner and fence. Select it to see more.");
    box.replaceChildren(el("div", { class: "line" }, this.labels, this.svg), legend(), this.detail);
  }

  // draw shows the holds from one moment to another, and says what it left out.
  draw(records, from, to, now, at = null) {
    const spans = spansOf(records, now).filter((s) => s.to >= from && s.from <= to);
    const counts = new Map();
    for (const s of spans) counts.set(s.r.target, (counts.get(s.r.target) ?? 0) + 1);
    const targets = [...counts.keys()].sort((a, b) => counts.get(b) - counts.get(a) || (a < b ? -1 : 1)).slice(0, this.most).sort();
    this.#lanes = new Map(targets.map((target, i) => [target, { i, spans: [], rows: [] }]));
    for (const s of spans) this.#lanes.get(s.r.target)?.spans.push(s);
    this.#label(targets);
    const width = Math.max(200, this.svg.clientWidth || 800), height = axisHeight + laneHeight * targets.length;
    const x = (t) => ((t - from) / (to - from)) * width;
    if (this.size !== `${width} ${height}`) {
      this.size = `${width} ${height}`;
      this.svg.setAttribute("viewBox", `0 0 ${width} ${height}`);
      this.svg.setAttribute("height", height);
      this.back.replaceChildren(...targets.map((_, i) => svg("line", { class: "grid", x1: 0, x2: width, y1: axisHeight + laneHeight * (i + 1) - 0.5, y2: axisHeight + laneHeight * (i + 1) - 0.5 })));
    }
    this.scale = { from, to, width };
    this.#ticks(from, to, width, x, height, at);
    this.#draw(x, width);
    this.svg.setAttribute("aria-label", `Timeline of ${plural(this.#order.length, "hold", "holds")} of ${plural(targets.length, "target", "targets")}, from ${momentText(from)} to ${momentText(to)}. The arrow keys go from hold to hold.`);
    return { shown: targets.length, targets: counts.size, holds: this.#order.length };
  }

  #label(targets) {
    const key = JSON.stringify(targets);
    if (key === this.key) return;
    this.key = key;
    this.labels.replaceChildren(el("li", { class: "axis", "aria-hidden": "true" }), ...targets.map((t) => el("li", {}, targetName(t, true, { class: "", title: visible(t).slice(0, 2000) }))));
  }

  #ticks(from, to, width, x, height, at) {
    const most = Math.max(1, Math.floor(width / 110));
    const step = steps.find((s) => (to - from) / s <= most) ?? (to - from);
    const zone = new Date(from).getTimezoneOffset() * 60000;
    const ticks = [];
    for (let t = Math.ceil((from - zone) / step) * step + zone; t <= to; t += step) {
      const text = step >= 86400000 ? momentText(t) : step >= 60000 ? clockText(t).slice(0, 5) : clockText(t);
      ticks.push(svg("line", { class: "grid", x1: x(t), x2: x(t), y1: axisHeight - 5, y2: height }),
        svg("a", { href: momentLink(t), "aria-label": `Who held what at ${momentText(t)}`, tabindex: "-1" }, svg("text", { x: Math.min(x(t) + 3, width - 58), y: 13 }, text)));
    }
    if (at !== null) ticks.push(svg("line", { class: "at", x1: x(at), x2: x(at), y1: 0, y2: height }));
    this.axis.replaceChildren(...ticks);
  }

  #draw(x, width) {
    const used = new Set(), marks = [];
    this.#order = [];
    for (const [, lane] of this.#lanes) {
      const rows = []; // ends of the holds that are at the same time
      for (const s of lane.spans) {
        let row = rows.findIndex((end) => end <= s.from);
        if (row < 0) row = rows.length < 4 ? rows.length : 3;
        rows[row] = Math.max(rows[row] ?? 0, s.to);
        s.row = row;
      }
      const high = (laneHeight - 8) / Math.max(1, rows.length);
      for (const s of lane.spans) {
        this.#order.push(s);
        used.add(s.r.id);
        const left = Math.max(0, x(s.from)), right = Math.min(width, x(s.to));
        this.#bar(s, { x: left.toFixed(1), y: (axisHeight + laneHeight * lane.i + 4 + s.row * high).toFixed(1), width: Math.max(2.5, right - left).toFixed(1), height: Math.max(2, high - 1).toFixed(1) });
        if (s.next && s.next.from - s.to <= handoverGap && right - left > 5) {
          const y = axisHeight + laneHeight * lane.i;
          marks.push(`M${right.toFixed(1)} ${y + 2}l5 ${laneHeight / 2 - 2}l-5 ${laneHeight / 2 - 2}z`);
        }
      }
    }
    this.marks.replaceChildren(svg("path", { class: "over", d: marks.join("") || "M0 0" }));
    for (const [id, bar] of this.#bars) {
      if (used.has(id)) continue;
      bar.rect.remove();
      this.#bars.delete(id);
    }
  }

  #bar(s, place) {
    let bar = this.#bars.get(s.r.id);
    if (!bar) {
      bar = { rect: svg("rect", { rx: 2 }), title: svg("title"), has: {} };
      bar.rect.append(bar.title);
      this.#bars.set(s.r.id, bar);
      this.front.append(bar.rect);
    }
    bar.span = s;
    bar.rect.span = s;
    const look = "hold " + s.look + (this.#chosen === s.r.id ? " chosen" : "");
    for (const [name, value] of Object.entries({ ...place, class: look })) {
      if (bar.has[name] !== value) bar.rect.setAttribute(name, (bar.has[name] = value));
    }
    // The text is made when it is asked for, and kept while it stays true.
    const state = s.r.state + (s.next ? s.next.r.id : "");
    if (bar.state !== state) {
      bar.state = state;
      setText(bar.title, titleOf(s));
    }
  }

  #key(event) {
    const way = { ArrowLeft: -1, ArrowRight: 1, ArrowUp: -2, ArrowDown: 2, Home: -3, End: 3 }[event.key];
    if (!way || !this.#order.length) return;
    event.preventDefault();
    const at = this.#order.findIndex((s) => s.r.id === this.#chosen);
    if (at < 0) return this.#choose(this.#order.at(way === -3 ? 0 : -1));
    const here = this.#order[at];
    if (Math.abs(way) === 1) {
      const next = this.#order[at + way];
      return next?.r.target === here.r.target && this.#choose(next);
    }
    if (Math.abs(way) === 3) return this.#choose(this.#order.at(way === -3 ? 0 : -1));
    const lanes = [...this.#lanes.values()], lane = lanes[this.#lanes.get(here.r.target).i + way / 2];
    if (lane) this.#choose(lane.spans.reduce((best, s) => (Math.abs(s.from - here.from) < Math.abs(best.from - here.from) ? s : best)));
  }

  #click(event) {
    if (event.target.span) return this.#choose(event.target.span);
    if (event.target.closest("a")) return;
    const box = this.svg.getBoundingClientRect(), { from, to } = this.scale;
    const t = Math.round(from + ((event.clientX - box.left) / box.width) * (to - from));
    this.detail.replaceChildren("Who held what at ", moment(t), "?");
  }

  #choose(s) {
    const before = this.#bars.get(this.#chosen);
    this.#chosen = s.r.id;
    if (before) this.#again(before);
    this.#again(this.#bars.get(s.r.id));
    const { r } = s;
    this.detail.replaceChildren(targetName(r.target, true), el("span", { class: "sub" }, `${r.shared ? "reader, " : ""}${r.fence ? `fence ${r.fence}, ` : ""}pid ${r.pid}${r.client ? ` from ${r.client}` : ""}`),
      "Held by ", bdi(r.owner), " from ", moment(s.from), ...(r.state === "held" ? [] : [" to ", moment(s.to)]), ` (${duration(s.to - s.from)}), ${howEnded(s)}.`, s.before ? ` Before: ${visible(s.before.r.owner)}.` : "", s.next ? ` Then: ${handedOver(s)}.` : "");
  }

  #again(bar) {
    bar.has.class = "hold " + bar.span.look + (this.#chosen === bar.span.r.id ? " chosen" : "");
    bar.rect.setAttribute("class", bar.has.class);
  }
}

function hatch(name) {
  return svg("pattern", { id: name, width: 6, height: 6, patternUnits: "userSpaceOnUse", patternTransform: "rotate(45)" }, svg("line", { class: "p-" + name, x1: 0, x2: 0, y1: 0, y2: 6 }));
}

function legend() {
  const item = (look, text) => el("li", {}, svg("svg", { viewBox: "0 0 22 12", "aria-hidden": "true" }, svg("rect", { class: "hold " + look, x: 1, y: 1, width: 20, height: 10, rx: 2 })), text);
  return el("ul", { class: "legend" }, item("held", "held now"), item("ended", "released"), item("lost", "lost, expired or killed"), item("orphaned", "orphaned"),
    el("li", {}, svg("svg", { viewBox: "0 0 22 12", "aria-hidden": "true" }, svg("path", { class: "over", d: "M8 0l5 6l-5 6z" })), "handed over at once"));
}
