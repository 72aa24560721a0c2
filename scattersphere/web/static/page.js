// Scattersphere's only script. Every page works without it; it adds: live regions, ticking durations, the theme
// without a reload, keys, and closing of dialogues. No dependencies, nothing is evaluated, nothing is stored but the theme.
"use strict";

const $ = (selector, root = document) => root.querySelector(selector);
const all = (selector, root = document) => [...root.querySelectorAll(selector)];

// --- Live regions -----------------------------------------------------------------------------------------------
// The server sends what it would render: {"put": {id: inner HTML}, "append": {id: HTML}}, escaped there, at its one
// door. At most ten messages a second; the latest wins, so a lost message costs nothing once the next has come.

const kept = new Map(); // the newest content of regions that are in use; drawn when they are left

function put(id, html) {
  const region = document.getElementById(id);
  if (!region) return;
  if (region.matches(":has(details[open], input:focus, select:focus)")) {
    kept.set(id, html); // do not pull away what somebody uses
    return;
  }
  kept.delete(id);
  const held = region.contains(document.activeElement) ? document.activeElement.id : "";
  region.innerHTML = html;
  if (held) document.getElementById(held)?.focus({ preventScroll: true });
}

function catchUp() {
  for (const [id, html] of [...kept]) put(id, html);
}

function append(id, html) {
  const list = document.getElementById(id);
  if (!list) return;
  const follows = list.scrollHeight - list.scrollTop - list.clientHeight < 40;
  list.insertAdjacentHTML("beforeend", html);
  while (list.childElementCount > 2000) list.firstElementChild.remove();
  if (follows) list.scrollTop = list.scrollHeight;
}

function listen(url) {
  const source = new EventSource(url);
  const sign = $("#live");
  let pending = null; // drawn once a frame, and not at all in a hidden tab until it is shown again
  const draw = () => {
    const { put: puts, append: appends } = pending;
    pending = null;
    for (const [id, html] of Object.entries(puts)) put(id, html);
    for (const [id, html] of Object.entries(appends)) append(id, html);
  };
  source.addEventListener("page", ({ data }) => {
    const { put = {}, append = {} } = JSON.parse(data);
    if (!pending) {
      pending = { put: {}, append: {} };
      requestAnimationFrame(draw);
    }
    Object.assign(pending.put, put);
    for (const [id, html] of Object.entries(append)) pending.append[id] = (pending.append[id] ?? "") + html;
  });
  source.addEventListener("ended", () => { source.close(); if (sign) sign.hidden = true; });
  source.onopen = () => tell(false);
  source.onerror = () => tell(true);
  function tell(lost) {
    if (!sign) return;
    sign.toggleAttribute("data-lost", lost);
    sign.textContent = lost ? "connection lost, trying again" : "live";
  }
}

// --- Durations that tick -----------------------------------------------------------------------------------------

function words(seconds) {
  const two = (value) => String(Math.floor(value)).padStart(2, "0");
  if (seconds < 60) return `${Math.floor(seconds)} s`;
  if (seconds < 3600) return `${Math.floor(seconds / 60)} m ${two(seconds % 60)} s`;
  if (seconds < 172800) return `${Math.floor(seconds / 3600)} h ${two((seconds % 3600) / 60)} m`;
  return `${Math.floor(seconds / 86400)} d ${two((seconds % 86400) / 3600)} h`;
}

function tick() {
  if (document.hidden) return;
  for (const node of all("[data-since]")) node.textContent = words(Math.max(0, Date.now() / 1000 - Number(node.dataset.since)));
}

// --- Theme: a cookie, so that the server renders the page in it from the first byte ------------------------------

function choose(theme) {
  document.cookie = `theme=${theme}; path=${document.body.dataset.base || "/"}; max-age=31536000; samesite=strict`;
  if (theme) document.documentElement.dataset.theme = theme;
  else delete document.documentElement.dataset.theme;
  for (const button of all(".themes button")) button.setAttribute("aria-pressed", String(button.value === theme));
}

// --- Keys: g then a letter goes to a page, / to the search, arrows walk the graph --------------------------------

function neighbour(node, key) {
  // The nearest node in the arrow's direction; what lies aside counts double.
  const from = node.getBoundingClientRect();
  const sign = key === "ArrowLeft" || key === "ArrowUp" ? -1 : 1;
  const flat = key === "ArrowLeft" || key === "ArrowRight";
  let best = null;
  let least = Infinity;
  for (const other of all(".node", node.closest("svg"))) {
    const to = other.getBoundingClientRect();
    const along = sign * (flat ? to.x - from.x : to.y - from.y);
    const aside = Math.abs(flat ? to.y - from.y : to.x - from.x);
    if (other !== node && along > 4 && along + 2 * aside < least) [best, least] = [other, along + 2 * aside];
  }
  return best;
}

function keys() {
  let before = "";
  document.addEventListener("keydown", (event) => {
    if (event.ctrlKey || event.metaKey || event.altKey) return;
    if (event.key === "Escape") {
      for (const open of all("details.ask[open]")) {
        open.open = false;
        $("summary", open).focus();
      }
      return;
    }
    if (event.target.matches("input, select, textarea")) return;
    if (event.key.startsWith("Arrow") && event.target.matches(".node")) {
      const next = neighbour(event.target, event.key);
      if (next) {
        next.focus();
        event.preventDefault();
      }
    } else if (event.key === "/") {
      ($("#go") ?? $("input[type=search]"))?.focus();
      event.preventDefault();
    } else if (before === "g") {
      all(".top nav a").find((link) => link.textContent.trim().toLowerCase().startsWith(event.key))?.click();
    }
    before = event.key;
  });
}

// --- Start -------------------------------------------------------------------------------------------------------

for (const button of all(".themes button")) {
  button.addEventListener("click", (event) => {
    event.preventDefault();
    choose(button.value);
  });
}
document.addEventListener("click", ({ target }) => {
  for (const open of all("details.ask[open]")) if (!open.contains(target)) open.open = false; // one at a time
});
for (const list of all(".log[data-append]")) if (document.body.dataset.events) list.scrollTop = list.scrollHeight;
for (const node of all(".picture .chosen")) node.scrollIntoView?.({ block: "nearest", inline: "center" });
if (!location.hash) window.scrollTo(0, 0);
if (document.body.dataset.events) {
  listen(document.body.dataset.events);
  document.addEventListener("toggle", catchUp, true); // a dialogue was closed
  document.addEventListener("focusout", () => setTimeout(catchUp)); // a field was left
  if ($("[data-since]")) setInterval(tick, 1000);
}
keys();
