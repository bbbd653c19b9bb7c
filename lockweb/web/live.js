// The stream of changes, and what it has brought.

export const store = {
  locks: new Map(), waiters: new Map(), records: new Map(), contended: new Map(),
  head: { locks: 0, shown: 0, waiters: 0, audit: "" },
  known: false, // something has come
  lastNow: 0, // the server's clock, at the last change
  goodNow: 0, // the same, at the last one without trouble
  heard: Date.now(), // our clock, at the last change
  offset: 0, // of the server's clock to ours
};

// now is the server's clock. It stands still while the server does not answer,
// since what is shown is from then.
export const now = () => (store.head.trouble && store.goodNow ? store.goodNow : Date.now() + store.offset);

const kinds = { l: store.locks, w: store.waiters, r: store.records, c: store.contended };

function apply(change) {
  if (change.full) for (const map of Object.values(kinds)) map.clear();
  for (const id of change.gone ?? []) kinds[id[0]].delete(id);
  for (const [id, item] of Object.entries(change.set ?? {})) kinds[id[0]].set(id, item);
  if (change.head) store.head = change.head;
  store.lastNow = change.now;
  store.offset = change.now - Date.now();
  if (!store.head.trouble) store.goodNow = change.now;
  store.known = true;
  store.heard = Date.now();
}

// follow calls changed after each change, and lost with a text when nothing
// comes any more. While nobody sees the page there is no stream.
export function follow(changed, lost) {
  let source = null, timer = 0;
  function close() {
    clearTimeout(timer);
    source?.close();
    source = null;
  }
  function open() {
    close();
    source = new EventSource("api/events");
    source.onmessage = (event) => {
      apply(JSON.parse(event.data));
      changed();
    };
    source.onerror = async () => {
      if (source?.readyState !== EventSource.CLOSED) {
        lost("swanlock's page server does not answer; trying again. What is shown is from " , false);
        return;
      }
      close();
      let status = 0;
      try {
        status = (await fetch("api/state")).status;
      } catch { /* it does not answer */ }
      if (status === 401) lost("Your session has ended: load the page again, and sign in. What is shown is from ", true);
      else lost("swanlock's page server does not answer; trying again. What is shown is from ", false);
      timer = setTimeout(open, 3000);
    };
  }
  document.addEventListener("visibilitychange", () => (document.hidden ? close() : open()));
  addEventListener("pagehide", close);
  if (!document.hidden) open();
}
