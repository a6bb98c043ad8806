// Keeps a page live: an element with `data-live="/live/…"` names a stream, whose messages hold new insides for elements by
// their id. The page is whole without this.
"use strict";
(() => {
  const source = document.querySelector("[data-live]");
  const state = document.getElementById("live-state");
  if (!source || !window.EventSource) return;

  const say = (kind, text) => {
    state.className = `live-state ${kind}`;
    if (state.textContent !== text) state.textContent = text;
  };

  // The element that has the keyboard is replaced too: its twin gets it.
  const place = (element, html) => {
    const active = document.activeElement;
    const key = element.contains(active) && active !== element && (active.getAttribute("href") || active.id);
    element.innerHTML = html;
    if (!key) return;
    for (const twin of element.querySelectorAll("a[href], [id]")) {
      if (twin.getAttribute("href") === key || twin.id === key) return twin.focus({ preventScroll: true });
    }
  };

  // What somebody selects or has opened must not go away under their hands: it waits.
  const waiting = new Map();
  const isHeld = (element) => {
    const selection = document.getSelection();
    const selects = selection && !selection.isCollapsed && element.contains(selection.anchorNode);
    return selects || element.querySelector("input:focus, select:focus, textarea:focus, details[open]") !== null;
  };

  const show = () => {
    for (const [id, html] of waiting) {
      const element = document.getElementById(id);
      if (element && isHeld(element)) continue;
      waiting.delete(id);
      if (element) place(element, html);
    }
  };
  for (const event of ["selectionchange", "focusout", "toggle"]) document.addEventListener(event, () => setTimeout(show), true);

  let stream = null;
  const open = () => {
    if (stream) return;
    stream = new EventSource(source.dataset.live);
    stream.onopen = () => say("on", "Live");
    stream.onerror = () => say("off", "Connection lost, trying again");
    stream.onmessage = (message) => {
      for (const [id, html] of Object.entries(JSON.parse(message.data))) waiting.set(id, html);
      show();
    };
  };
  const close = () => {
    if (!stream) return;
    stream.close();
    stream = null;
  };
  // A page that nobody sees asks for nothing.
  document.addEventListener("visibilitychange", () => (document.hidden ? close() : open()));
  window.addEventListener("pagehide", close);
  window.addEventListener("pageshow", () => document.hidden || open());
  open();
})();

// A form that only chooses needs no button where there are scripts.
(() => {
  for (const form of document.querySelectorAll("form[data-submit=change]")) {
    form.addEventListener("change", () => form.requestSubmit());
    for (const button of form.querySelectorAll("button")) button.hidden = true;
  }
})();
