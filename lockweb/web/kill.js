// To end a holder's session, after it was shown what that is. Only with a token.

import { el, bdi, byId, duration } from "./dom.js";
import { store, now } from "./live.js";

const { csrf, kill } = document.documentElement.dataset;
export const mayKill = kill === "yes";

let chosen = null;

function fact(name, ...value) {
  return [el("dt", {}, name), el("dd", {}, ...value)];
}

export function askToKill(item) {
  chosen = item;
  const others = [...store.locks.values()].filter((l) => l.pid === item.pid && l.started === item.started && l !== item);
  byId("kill-what").replaceChildren(el("dl", { class: "facts" },
    ...fact("Lock", bdi(item.name)),
    ...(item.owner ? fact("Owner", bdi(item.owner)) : []),
    ...fact("Session", `pid ${item.pid}`, item.application ? ", " : "", bdi(item.application ?? ""), item.client ? `, from ${item.client}` : ""),
    ...(item.since ? fact("Held for", duration(now() - item.since)) : []),
    ...fact("Waiters", String(item.waiting ?? 0)),
    ...(others.length ? fact("Also frees", el("ul", {}, ...others.slice(0, 20).map((l) => el("li", {}, bdi(l.name))), others.length > 20 && el("li", {}, `and ${others.length - 20} more`))) : [])));
  byId("kill-error").hidden = true;
  byId("kill-yes").disabled = false;
  byId("kill").showModal();
}

async function kill_() {
  const yes = byId("kill-yes"), complaint = byId("kill-error");
  yes.disabled = true;
  try {
    const answer = await fetch("api/kill", {
      method: "POST", headers: { "Content-Type": "application/json", "X-CSRF-Token": csrf },
      body: JSON.stringify({ pid: chosen.pid, started: chosen.started ?? "", key: chosen.key, by: byId("kill-by").value }),
    });
    if (answer.ok) {
      byId("kill").close();
      return;
    }
    complaint.textContent = (await answer.json()).error;
  } catch {
    complaint.textContent = "swanlock's page server does not answer. Whether the session was ended is not known: look at the table.";
  }
  complaint.hidden = false;
  yes.disabled = false;
}

if (mayKill) byId("kill-yes").addEventListener("click", kill_);
