// What all parts of the page of cgate share: asking the server, small parts, drawing, and tables.
//
// Contract: nothing that a worker, a job or a user has named is ever markup: it becomes text by `textContent`.  What has
// changed is drawn at most twice a second.  A table has ROWS rows, and more when somebody scrolls to its end.  When the
// server does not answer, the page says since when.

export const POLL = 3000; // milliseconds between two looks
const DRAW = 500; // milliseconds between two drawings, at least
const LONGEST_DRAW = 3000; // milliseconds, at most
const SHARE = 30; // of the time, one part may be spent on drawing
const ROWS = 50; // of a table, at first
const PATIENCE = 15_000; // milliseconds that an answer may take

export const one = (id) => document.getElementById(id);
export const me = { name: "", role: "viewer", apps: [], parts: [] };
export const inOrder = new Intl.Collator(undefined, { numeric: true }).compare;

// Asking the server

let heardAt = Date.now(); // when the server last answered
let shownAt = Date.now(); // when the page was last brought to the front
export function heard() { heardAt = Date.now(); }
export function shownAgain() { shownAt = Date.now(); }

export class Refused extends Error {}

export async function ask(path, options = {}) {
  const response = await fetch(path, { cache: "no-store", credentials: "same-origin", ...options });
  heard();
  if (response.status === 401) {
    location.href = "/login";
    throw new Refused("log in again");
  }
  if (!response.ok) {
    const problem = await response.json().catch(() => ({}));
    throw new Refused(problem.detail || `the server said ${response.status}`);
  }
  return response;
}

export const get = async (path) => (await ask(path, { signal: AbortSignal.timeout(PATIENCE) })).json();
export const post = async (path, value) =>
  ask(path, { method: "POST", headers: { "Content-Type": "application/json" }, body: JSON.stringify(value) });

// Small parts

export function make(tag, text = "", classes = "") {
  const element = document.createElement(tag);
  if (text !== "") element.textContent = text;
  if (classes) element.className = classes;
  return element;
}

export function button(text, label, act, classes = "") {
  const made = make("button", text, classes);
  made.type = "button";
  made.setAttribute("aria-label", label);
  made.addEventListener("click", act);
  return made;
}

export function duration(seconds) {
  if (seconds == null || Number.isNaN(seconds)) return "";
  if (seconds < 60) return `${seconds.toFixed(seconds < 10 ? 1 : 0)} s`;
  const minutes = Math.floor(seconds / 60);
  if (minutes < 60) return `${minutes} min`;
  const hours = Math.floor(minutes / 60);
  return hours < 48 ? `${hours} h ${minutes % 60} min` : `${Math.floor(hours / 24)} days`;
}

export const seconds = (text) => (text ? Date.parse(text) / 1000 : null);
const shownTimes = new Map(); // from RFC 3339 to what is shown of it: writing it takes long

// The time of day; with the date, if that is another one than today's.
export function when(text) {
  if (!text) return "";
  if (!shownTimes.has(text)) {
    if (shownTimes.size > 2000) shownTimes.clear();
    const date = new Date(text);
    shownTimes.set(text, date.toDateString() === new Date().toDateString() ? date.toLocaleTimeString() : date.toLocaleString());
  }
  return shownTimes.get(text);
}

export const plural = (count, word) => `${count} ${word}${count === 1 ? "" : "s"}`;
export const may = (role) => ["viewer", "submitter", "admin"].indexOf(me.role) >= ["viewer", "submitter", "admin"].indexOf(role);
export const owns = (thing) => me.role === "admin" || (me.role === "submitter" && thing.owner === me.name);

export function sure(text) {
  const dialog = one("sure");
  one("sure-text").textContent = text;
  dialog.returnValue = "";
  dialog.showModal();
  return new Promise((resolve) => dialog.addEventListener("close", () => resolve(dialog.returnValue === "yes"), { once: true }));
}

export async function trying(what) {
  try {
    await what();
  } catch (error) {
    say(error instanceof Refused ? error.message : "the server does not answer");
  }
}

// One line says what went wrong a moment ago, or that the server is silent.
let said = "";
let saidAt = 0;
function say(text) {
  said = text;
  saidAt = Date.now();
  showStale();
}

export function showStale() {
  if (document.hidden) return;
  const now = Date.now();
  let text = now - saidAt < 8000 ? said : "";
  if (now - Math.max(heardAt, shownAt) > 3 * POLL) text = `no answer from the server since ${new Date(heardAt).toLocaleTimeString()}; trying again`;
  if (one("stale").textContent !== text) one("stale").textContent = text;
}

// Drawing: what has changed is drawn together, and only while the page is seen.  The longer the browser takes to draw, the
// more seldom that is done.

export const drawers = {}; // by part of the page
const dirty = new Set();
let drawing = 0;
let cost = 0; // milliseconds that the last drawing took, with the browser's layout and painting
const painted = new MessageChannel();
let begunAt = 0;
painted.port1.onmessage = () => { cost = performance.now() - begunAt; };

export function redraw(part) {
  dirty.add(part);
  if (!drawing) drawing = setTimeout(() => requestAnimationFrame(draw), Math.min(Math.max(DRAW, SHARE * cost), LONGEST_DRAW));
}

export function redrawNow(part) {
  dirty.add(part);
  if (drawing) clearTimeout(drawing);
  drawing = setTimeout(() => requestAnimationFrame(draw), 0);
}

// How long to wait until the next look at what is drawn on much of the page, in milliseconds.
export function untilNextLook() {
  return Math.min(Math.max(POLL, 2 * SHARE * cost), 2 * POLL);
}

function draw() {
  drawing = 0;
  begunAt = performance.now();
  const parts = [...dirty];
  dirty.clear();
  for (const part of parts) drawers[part]();
  painted.port2.postMessage(0); // it is heard when the browser has painted
}

// A row of a table.  Its cells are changed in place, so that the focus stays where it is and little is laid out anew.
export class Row {
  constructor(key, title, columns) {
    this.element = make("tr");
    this.element.dataset.key = key;
    this.cells = columns.map((classes, index) => make(index ? "td" : "th", "", classes));
    this.cells[0].scope = "row";
    this.cells[0].title = title;
    this.element.append(...this.cells);
    this.texts = columns.map(() => "");
    this.classes = [...columns];
  }

  set(index, value, classes = this.classes[index]) {
    const text = value == null ? "" : String(value);
    if (text !== this.texts[index]) {
      this.cells[index].textContent = this.texts[index] = text;
      if (text.length > 30) this.cells[index].title = text; // a part of it may not fit
    }
    if (classes !== this.classes[index]) this.cells[index].className = this.classes[index] = classes;
  }
}

// The rows of a table, by key.  `build` makes the row of an item, which has a method `show` for it.  `most`: how many are
// shown; there are more when somebody scrolls to the end, and fewer again when he is back at the beginning.
export class Table {
  constructor(part, id, build) {
    this.body = one(id);
    this.build = build;
    this.rows = new Map();
    this.most = ROWS;
    this.more = false;
    const view = this.body.closest(".wide");
    view.addEventListener("scroll", () => {
      const wanted = view.scrollTop === 0 ? ROWS : this.most + ROWS;
      const near = view.scrollHeight - view.scrollTop - view.clientHeight < view.clientHeight;
      if (wanted < this.most || (this.more && near && this.rows.size >= this.most)) {
        this.most = wanted;
        redrawNow(part);
      }
    }, { passive: true });
  }

  // `items`: one more than `most`, if there are so many.
  show(items, keyOf) {
    this.more = items.length > this.most;
    items = items.slice(0, this.most);
    const wanted = new Set(items.map(keyOf));
    for (const [key, row] of this.rows) {
      if (wanted.has(key)) continue;
      row.element.remove();
      this.rows.delete(key);
    }
    let place = this.body.firstElementChild;
    for (const item of items) {
      const key = keyOf(item);
      let row = this.rows.get(key);
      if (!row) this.rows.set(key, (row = this.build(item)));
      row.show(item);
      if (row.element === place) place = place.nextElementSibling;
      else this.body.insertBefore(row.element, place);
    }
  }
}
