// What the other parts make the page of. Text only ever becomes text: there is
// nothing here that reads markup.

export function el(tag, attributes = {}, ...children) {
  return fill(document.createElement(tag), attributes, children);
}

export function svg(tag, attributes = {}, ...children) {
  return fill(document.createElementNS("http://www.w3.org/2000/svg", tag), attributes, children);
}

function fill(node, attributes, children) {
  for (const [name, value] of Object.entries(attributes)) {
    if (typeof value === "function") node.addEventListener(name, value);
    else if (value === true) node.setAttribute(name, "");
    else if (value !== false && value != null) node.setAttribute(name, value);
  }
  node.append(...children.filter((child) => child != null && child !== false));
  return node;
}

export const byId = (id) => document.getElementById(id);

// setText leaves a text alone that is right already, which costs no layout.
export function setText(node, text) {
  if (node.textContent !== text) node.textContent = text;
}

// visible writes as \u{..} what would not be seen, or would reorder the text
// around it: control characters, and marks of direction.
export function visible(text) {
  return text.replace(/[\p{Cc}\p{Cf}\p{Zl}\p{Zp}\p{Cs}\p{Co}]/gu, (c) => `\\u{${c.codePointAt(0).toString(16)}}`);
}

const longest = 300;

// bdi shows a name of anybody's, in its own direction.
export function bdi(text, attributes = {}) {
  const seen = visible(text);
  const short = seen.length > longest ? seen.slice(0, longest) + `… (${text.length} characters)` : seen;
  return el("bdi", { title: seen.length > 60 ? seen.slice(0, 2000) : null, ...attributes }, short);
}

export const targetLink = (name) => "./?" + new URLSearchParams({ target: name });
export const momentLink = (ms) => "./?" + new URLSearchParams({ at: new Date(ms).toISOString() });

export function targetName(name, isTarget, attributes = {}) {
  const shown = bdi(name, { class: "clip", ...attributes });
  return isTarget ? el("a", { href: targetLink(name) }, shown) : shown;
}

// duration is a length of time for people: two units at most.
export function duration(ms) {
  const s = Math.max(0, ms) / 1000;
  if (s < 1) return `${Math.round(ms)} ms`;
  if (s < 10) return `${s.toFixed(1)} s`;
  if (s < 60) return `${Math.floor(s)} s`;
  if (s < 3600) return `${Math.floor(s / 60)} min ${Math.floor(s % 60)} s`;
  if (s < 86400) return `${Math.floor(s / 3600)} h ${Math.floor((s % 3600) / 60)} min`;
  return `${Math.floor(s / 86400)} d ${Math.floor((s % 86400) / 3600)} h`;
}

const clock = new Intl.DateTimeFormat("en-GB", { hour: "2-digit", minute: "2-digit", second: "2-digit" });
const day = new Intl.DateTimeFormat("en-GB", { year: "numeric", month: "short", day: "numeric" });

export const clockText = (ms) => clock.format(ms);

// momentText is a time of day, with the day if that is not today.
export function momentText(ms, exact = false) {
  const d = day.format(ms);
  const fraction = exact ? "." + String(((ms % 1000) + 1000) % 1000).padStart(3, "0") : "";
  return (d === day.format(Date.now()) ? "" : d + ", ") + clock.format(ms) + fraction;
}

// moment is a time that leads to what was held then.
export function moment(ms, exact = true) {
  const iso = new Date(ms).toISOString();
  return el("a", { href: momentLink(ms), title: `${iso}: who held what then` }, el("time", { datetime: iso }, momentText(ms, exact)));
}

export const plural = (n, one, many) => `${n.toLocaleString("en")} ${n === 1 ? one : many}`;
