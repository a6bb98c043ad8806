// Traces: a stretch of the scatter plot chosen with the pointer, a link copied, what happens now. Every page is whole
// without this, but for the live tail.
"use strict";

// Whoever comes with #s12 sees that span open.
(() => {
  const openTarget = () => {
    const target = /^#s\d+$/.test(location.hash) && document.getElementById(location.hash.slice(1));
    if (!target) return;
    target.open = true;
    target.scrollIntoView({ block: "nearest" });
  };
  addEventListener("hashchange", openTarget);
  openTarget();
})();

// A link to this page, for somebody else.
(() => {
  const button = document.querySelector('[data-copy="page"]');
  if (!button || !navigator.clipboard) return;
  button.hidden = false;
  button.addEventListener("click", async () => {
    try {
      await navigator.clipboard.writeText(location.href);
      button.textContent = "Copied";
    } catch {
      button.textContent = "The browser forbids it";
    }
    setTimeout(() => (button.textContent = "Copy link"), 2000);
  });
})();

// Two requests are compared, not three.
(() => {
  const button = document.querySelector('button[form="compare"]');
  if (!button) return;
  const boxes = [...document.querySelectorAll('input[form="compare"]')];
  const count = () => {
    const ticked = boxes.filter((box) => box.checked).length;
    button.disabled = ticked !== 2;
    for (const box of boxes) box.disabled = ticked >= 2 && !box.checked;
  };
  for (const box of boxes) box.addEventListener("change", count);
  count();
})();

// A stretch of the plot becomes the range of the search.
(() => {
  const plot = document.querySelector(".plot svg");
  if (!plot) return;
  const [since, until] = [Number(plot.dataset.since), Number(plot.dataset.until)];
  let start = null;
  let chosen = null;
  const part = (event) => {
    const box = plot.getBoundingClientRect();
    return Math.min(1, Math.max(0, (event.clientX - box.left) / box.width));
  };
  plot.addEventListener("pointerdown", (event) => {
    if (event.pointerType !== "mouse" || event.button !== 0 || event.target.closest("a")) return;
    start = part(event);
    chosen = document.createElementNS(plot.namespaceURI, "rect");
    chosen.setAttribute("class", "chosen");
    chosen.setAttribute("height", "200");
    plot.append(chosen);
    plot.setPointerCapture(event.pointerId);
    event.preventDefault();
  });
  plot.addEventListener("pointermove", (event) => {
    if (start === null) return;
    const now = part(event);
    chosen.setAttribute("x", String(1000 * Math.min(start, now)));
    chosen.setAttribute("width", String(1000 * Math.abs(now - start)));
  });
  const end = (event) => {
    if (start === null) return;
    const [low, high] = [start, part(event)].sort((a, b) => a - b);
    start = null;
    chosen.remove();
    if (event.type === "pointercancel" || high - low < 0.01) return;
    const at = (share) => new Date(Math.round(since + (until - since) * share)).toISOString();
    const address = new URL(location.href);
    address.searchParams.set("since", at(low));
    address.searchParams.set("until", at(high));
    address.searchParams.delete("after");
    location.assign(address);
  };
  plot.addEventListener("pointerup", end);
  plot.addEventListener("pointercancel", end);
})();

// What happens now.
(() => {
  const table = document.getElementById("tail");
  if (!table || !window.EventSource) return;
  const MOST = 500; // rows of the page
  const KNOWN = 5000; // ids of events that were shown
  const body = table.tBodies[0];
  const count = document.getElementById("tail-count");
  const state = document.getElementById("live-state");
  const pause = document.getElementById("tail-pause");
  const clear = document.getElementById("tail-clear");
  const known = new Set();
  let waiting = [];
  let missed = 0;
  let total = 0;

  const cell = (row, text, name) => {
    const td = row.insertCell();
    if (name) td.className = name;
    const holder = document.createElement(name === "num" || name === "when" ? "span" : "bdi");
    holder.textContent = text;
    td.append(holder);
    return td;
  };
  const clock = (ms) => {
    const at = new Date(ms);
    const two = (number) => String(number).padStart(2, "0");
    const millis = String(at.getMilliseconds()).padStart(3, "0");
    return `${two(at.getHours())}:${two(at.getMinutes())}:${two(at.getSeconds())}.${millis}`;
  };
  const draw = (told) => {
    const row = document.createElement("tr");
    if (told.failed) row.className = "failed";
    cell(row, clock(told.time), "when");
    cell(row, told.event);
    cell(row, told.service);
    const badge = document.createElement("span");
    const kind = told.failed ? "bad" : told.status >= 400 ? "warn" : told.status ? "good" : "";
    badge.className = `badge ${kind}`;
    badge.textContent = told.status ?? (told.failed ? "failed" : "–");
    row.insertCell().append(badge);
    cell(row, told.took ?? "–", "num");
    const link = document.createElement("a");
    link.href = `/traces/${encodeURIComponent(told.request)}`;
    const line = document.createElement("bdi");
    line.textContent = told.line.trim() || told.request;
    link.append(line);
    row.insertCell().append(link);
    return row;
  };
  const say = () => {
    const held = waiting.length ? `, ${waiting.length} wait` : "";
    const left = missed ? `, ${missed} were too many to show` : "";
    count.textContent = `${total} ${total === 1 ? "event" : "events"}${held}${left}`;
  };
  const show = (rows) => {
    const fragment = document.createDocumentFragment();
    for (const told of rows.reverse()) fragment.append(draw(told)); // the newest on top
    body.prepend(fragment);
    while (body.rows.length > MOST) body.deleteRow(-1);
  };
  const isPaused = () => pause.getAttribute("aria-pressed") === "true";
  const take = ({ rows, skipped }) => {
    missed += skipped;
    const news = rows.filter((told) => told.id === "" || !known.has(told.id));
    for (const told of news) known.add(told.id);
    for (const id of known) {
      if (known.size <= KNOWN) break;
      known.delete(id);
    }
    total += news.length;
    if (isPaused()) waiting = waiting.concat(news).slice(-MOST);
    else show(news);
    say();
  };
  pause.hidden = clear.hidden = false;
  pause.addEventListener("click", () => {
    const paused = !isPaused();
    pause.setAttribute("aria-pressed", String(paused));
    pause.textContent = paused ? "Go on" : "Pause";
    if (!paused) {
      show(waiting);
      waiting = [];
    }
    say();
  });
  clear.addEventListener("click", () => {
    body.replaceChildren();
    [total, missed, waiting] = [0, 0, []];
    say();
  });

  const live = (kind, text) => {
    state.className = `live-state ${kind}`;
    state.textContent = text;
  };
  let stream = null;
  let last = "";
  const open = () => {
    if (stream) return;
    const address = new URL(table.dataset.tail, location.href);
    if (last) address.searchParams.set("last", last);
    stream = new EventSource(address);
    stream.onopen = () => live("on", "Live");
    stream.onerror = () => {
      live("off", "Connection lost, trying again");
      // a browser does not come again by itself to who answered with an error, as a process that just starts
      if (!stream || stream.readyState !== EventSource.CLOSED) return;
      stream = null;
      setTimeout(() => document.hidden || open(), 3000);
    };
    stream.onmessage = (message) => {
      live("on", "Live");
      last = message.lastEventId;
      take(JSON.parse(message.data));
    };
    stream.addEventListener("trouble", (message) => live("off", `The trace store is away: ${message.data}`));
  };
  const close = () => {
    if (stream) stream.close();
    stream = null;
  };
  // A page that nobody sees asks for nothing; when it is seen again it goes on where it was.
  document.addEventListener("visibilitychange", () => (document.hidden ? close() : open()));
  addEventListener("pagehide", close);
  addEventListener("pageshow", () => document.hidden || open());
  open();
})();
