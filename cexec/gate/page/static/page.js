// The page of cgate: it shows the cluster and asks /v1 for everything it does.
//
// Contract: nothing that a worker, a job or a user has named is ever markup: it becomes text by `textContent`.  The page
// asks for workers every POLL milliseconds, hears of jobs by server-sent events, and draws at most twice a second.  It
// keeps MOST_JOBS jobs.  A table has ROWS rows, and more when somebody scrolls to its end.  When the server does not
// answer, the page says since when, and tries again.

const POLL = 3000; // milliseconds between two looks at the workers
const DRAW = 500; // milliseconds between two drawings, at least
const LONGEST_DRAW = 3000; // milliseconds, at most
const SHARE = 15; // of the time, one part may be spent on drawing
const MOST_JOBS = 10_000; // that are kept
const ROWS = 50; // of a table, at first
const PATIENCE = 15_000; // milliseconds that an answer may take
const MOST_OUTPUT = 1_000_000; // characters of an output that are shown: the last ones
const MOST_PIECES = 20_000; // of one style each, that are shown of an output
const AT_ONCE = 20; // jobs that are asked for one by one
const SIGNALS = ["SIGTERM", "SIGINT", "SIGHUP", "SIGQUIT", "SIGUSR1", "SIGUSR2"];
const STATES = ["queued", "running", "succeeded", "failed", "cancelled", "interrupted"];
const OVER = new Set(["succeeded", "failed", "cancelled", "interrupted"]);

const one = (id) => document.getElementById(id);
const me = { name: "", role: "viewer", apps: [], parts: [] };
const workers = new Map(); // UUID to worker
const jobs = new Map(); // id to job
const order = []; // the ids of all jobs, the newest first
const running = new Map(); // id to job
const counts = Object.fromEntries(STATES.map((name) => [name, 0]));
const pools = new Map(); // id to pool
let heardAt = Date.now(); // when the server last answered
let shownAt = Date.now(); // when the page was last brought to the front
let nextPage = null; // of older jobs

// Asking the server

class Refused extends Error {}

async function ask(path, options = {}) {
  const response = await fetch(path, { cache: "no-store", credentials: "same-origin", ...options });
  heardAt = Date.now();
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

const get = async (path) => (await ask(path, { signal: AbortSignal.timeout(PATIENCE) })).json();
const post = async (path, value) =>
  ask(path, { method: "POST", headers: { "Content-Type": "application/json" }, body: JSON.stringify(value) });

// Small parts

function make(tag, text = "", classes = "") {
  const element = document.createElement(tag);
  if (text !== "") element.textContent = text;
  if (classes) element.className = classes;
  return element;
}

function button(text, label, act, classes = "") {
  const made = make("button", text, classes);
  made.type = "button";
  made.setAttribute("aria-label", label);
  made.addEventListener("click", act);
  return made;
}

function duration(seconds) {
  if (seconds == null || Number.isNaN(seconds)) return "";
  if (seconds < 60) return `${seconds.toFixed(seconds < 10 ? 1 : 0)} s`;
  const minutes = Math.floor(seconds / 60);
  if (minutes < 60) return `${minutes} min`;
  const hours = Math.floor(minutes / 60);
  return hours < 48 ? `${hours} h ${minutes % 60} min` : `${Math.floor(hours / 24)} days`;
}

const seconds = (text) => (text ? Date.parse(text) / 1000 : null);
const shownTimes = new Map(); // from RFC 3339 to what is shown of it: writing it takes long

// The time of day; with the date, if that is another one than today's.
function when(text) {
  if (!text) return "";
  if (!shownTimes.has(text)) {
    if (shownTimes.size > 2000) shownTimes.clear();
    const date = new Date(text);
    shownTimes.set(text, date.toDateString() === new Date().toDateString() ? date.toLocaleTimeString() : date.toLocaleString());
  }
  return shownTimes.get(text);
}

const plural = (count, word) => `${count} ${word}${count === 1 ? "" : "s"}`;
const may = (role) => ["viewer", "submitter", "admin"].indexOf(me.role) >= ["viewer", "submitter", "admin"].indexOf(role);
const owns = (thing) => me.role === "admin" || (me.role === "submitter" && thing.owner === me.name);

function sure(text) {
  const dialog = one("sure");
  one("sure-text").textContent = text;
  dialog.returnValue = "";
  dialog.showModal();
  return new Promise((resolve) => dialog.addEventListener("close", () => resolve(dialog.returnValue === "yes"), { once: true }));
}

async function trying(what) {
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

function showStale() {
  if (document.hidden) return;
  const now = Date.now();
  let text = now - saidAt < 8000 ? said : "";
  if (now - Math.max(heardAt, shownAt) > 3 * POLL) text = `no answer from the server since ${new Date(heardAt).toLocaleTimeString()}; trying again`;
  if (one("stale").textContent !== text) one("stale").textContent = text;
}

// Drawing: what has changed is drawn together, and only while the page is seen.  The longer the browser takes to draw, the
// more seldom that is done.

const dirty = new Set();
let drawing = 0;
let cost = 0; // milliseconds that the last drawing took, with the browser's layout and painting
const painted = new MessageChannel();
let begunAt = 0;
painted.port1.onmessage = () => { cost = performance.now() - begunAt; };

function redraw(part) {
  dirty.add(part);
  if (!drawing) drawing = setTimeout(() => requestAnimationFrame(draw), Math.min(Math.max(DRAW, SHARE * cost), LONGEST_DRAW));
}

function redrawNow(part) {
  dirty.add(part);
  if (drawing) clearTimeout(drawing);
  drawing = setTimeout(() => requestAnimationFrame(draw), 0);
}

function draw() {
  drawing = 0;
  begunAt = performance.now();
  const parts = [...dirty];
  dirty.clear();
  for (const part of parts) DRAWERS[part]();
  painted.port2.postMessage(0); // it is heard when the browser has painted
}

// A row of a table.  Its cells are changed in place, so that the focus stays where it is and little is laid out anew.
class Row {
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
class Table {
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

const texts = new WeakMap(); // from a job or a worker to what is searched
function has(thing, wanted) {
  let text = texts.get(thing);
  if (text === undefined) texts.set(thing, (text = searched(thing).toLowerCase()));
  return text.includes(wanted);
}
function searched(thing) {
  if (!thing.args) return Object.values(thing).map((value) => (typeof value === "object" ? JSON.stringify(value) : value)).join(" ");
  return [thing.id, thing.app, ...thing.args, thing.worker, thing.owner, thing.state, thing.reason].join(" ");
}

const inOrder = new Intl.Collator(undefined, { numeric: true }).compare;

function drawWorkers() {
  const wanted = one("worker-filter").value.toLowerCase();
  const gone = one("worker-gone").checked;
  const all = [...workers.values()].filter((worker) => gone || !worker.gone);
  const shown = all.filter((worker) => !wanted || has(worker, wanted));
  shown.sort((a, b) => a.gone - b.gone || inOrder(a.name, b.name) || (a.uuid < b.uuid ? -1 : 1));
  const there = all.filter((worker) => !worker.gone);
  const sum = (name) => there.reduce((total, worker) => total + worker[name], 0);
  const sick = there.filter((worker) => worker.health !== "ok").length;
  one("worker-totals").textContent = `${plural(there.length, "worker")}, ${sum("running")} of ${plural(sum("slots"), "slot")} busy` +
    (sick ? `, ${sick} with trouble` : "");
  here.clear();
  for (const job of running.values()) if (job.instance) here.set(job.instance, (here.get(job.instance) || new Set()).add(job));
  workerTable.show(shown, (worker) => worker.uuid);
  fillChoices();
}

const here = new Map(); // UUID of a worker to the jobs that it runs
const NOBODY = new Set();

class WorkerRow extends Row {
  constructor(worker) {
    super(worker.uuid, worker.uuid, ["", "", "", "number", "", "number", "", "", "", "", ""]);
    this.load = document.createElement("meter");
    this.cells[4].append(this.load);
  }

  show(worker) {
    const jobsHere = here.get(worker.uuid) || NOBODY;
    const owners = [...new Set([...jobsHere].map((job) => job.owner))].join(", ");
    const load = worker.load.toFixed(2);
    if (this.load.title !== load) {
      this.load.value = worker.load;
      this.load.title = load;
      this.load.setAttribute("aria-label", `load of ${worker.name}: ${load}`);
    }
    this.element.classList.toggle("gone", worker.gone);
    this.set(0, worker.name);
    this.set(1, worker.app);
    this.set(2, worker.address);
    this.set(3, `${worker.running}/${worker.slots}`);
    this.set(5, worker.speed.toFixed(2));
    this.set(6, jobsHere.size ? `${jobsHere.size} for ${owners}` : "");
    this.set(7, Object.entries(worker.labels).map(([key, value]) => (value ? `${key}=${value}` : key)).join(", "));
    this.set(8, worker.gone ? "gone" : worker.health, worker.health === "ok" && !worker.gone ? "ok" : "trouble");
    this.set(9, worker.gone ? "" : duration(Date.now() / 1000 - seconds(worker.since)));
    this.set(10, worker.gone ? when(worker.last_seen) : "now");
  }
}

function drawJobs() {
  const wanted = one("job-filter").value.toLowerCase();
  const state = one("job-state").value;
  const shown = [];
  for (const id of order) {
    const job = jobs.get(id);
    if ((state && job.state !== state) || (wanted && !has(job, wanted))) continue;
    if (shown.push(job) > jobTable.most) break;
  }
  one("job-totals").textContent = STATES.filter((name) => counts[name]).map((name) => `${counts[name]} ${name}`).join(", ") || "no jobs";
  one("older").hidden = !nextPage || jobs.size >= MOST_JOBS;
  jobTable.show(shown, (job) => job.id);
}

function how(job) {
  if (job.state === "failed" && job.exit_status != null) return `failed (${job.exit_status})`;
  return job.signal ? `${job.state} (${job.signal})` : job.state;
}

class JobRow extends Row {
  constructor(job) {
    super(job.id, job.id, ["", "", "", "", "", "", "", "", ""]);
    this.set(0, job.id.slice(0, 13));
    this.how = make("span");
    this.why = make("span", "", "why");
    this.cells[1].append(this.how, this.why);
    this.output = button("Output", `Output of job ${job.id}`, () => showOutput(job.id));
    this.cells[2].append(this.output);
    this.live = make("span");
    if (!OVER.has(job.state) && owns(job)) this.offer(job);
  }

  offer(job) {
    const signals = document.createElement("select");
    signals.setAttribute("aria-label", `Send a signal to job ${job.id}`);
    for (const text of ["signal", ...SIGNALS]) signals.append(new Option(text, text === "signal" ? "" : text));
    signals.addEventListener("change", () => trying(async () => {
      const signal = signals.value;
      signals.value = "";
      if (signal) await post(`/v1/jobs/${job.id}/signal`, { signal });
    }));
    this.live.append(" ", signals, " ", button("End", `End job ${job.id}`, () => trying(async () => {
      if (await sure(`Job ${job.id} of ${job.app} is ended, with everything that it has started.`)) await post(`/v1/jobs/${job.id}/cancel`, {});
    }), "grave"));
    this.cells[2].append(this.live);
  }

  show(job) {
    const text = how(job);
    if (this.how.textContent !== text) this.how.textContent = text;
    if (this.why.textContent !== (job.reason || "")) this.why.textContent = job.reason || "";
    this.set(1, "", job.state);
    if (OVER.has(job.state) && this.live.isConnected) {
      const focused = this.live.contains(document.activeElement);
      this.live.remove();
      if (focused) this.output.focus();
    }
    this.set(3, job.args.join(" ").slice(0, 300));
    this.set(4, job.worker);
    this.set(5, job.app);
    this.set(6, job.owner);
    this.set(7, when(job.submitted));
    this.set(8, job.started ? duration((seconds(job.ended) ?? Date.now() / 1000) - seconds(job.started)) : "");
  }
}

function drawPools() {
  const all = [...pools.values()].sort((a, b) => (a.id < b.id ? 1 : -1));
  one("pools").hidden = !all.length;
  poolTable.show(all, (pool) => pool.id);
}

class PoolRow extends Row {
  constructor(pool) {
    super(pool.id, pool.id, ["", "", "", "", "number", "", ""]);
    this.set(0, pool.id.slice(0, 13));
    this.left = 0;
    this.end = button("End", `End pool ${pool.id}`, () => trying(async () => {
      if (await sure(`${plural(this.left, "job")} of pool ${pool.id}: each is ended, with everything that it has started.`)) await post(`/v1/pools/${pool.id}/kill`, {});
    }), "grave");
    if (pool.state === "running" && owns(pool)) this.cells[2].append(this.end);
  }

  show(pool) {
    this.left = pool.jobs.filter((job) => !OVER.has(job.state)).length;
    this.set(1, pool.state, pool.state);
    if (pool.state !== "running") this.end.remove();
    this.set(3, pool.app);
    this.set(4, `${pool.jobs.length - this.left}/${pool.jobs.length}`);
    this.set(5, pool.owner);
    this.set(6, when(pool.submitted));
  }
}

const workerTable = new Table("workers", "worker-rows", (worker) => new WorkerRow(worker));
const jobTable = new Table("jobs", "job-rows", (job) => new JobRow(job));
const poolTable = new Table("pools", "pool-rows", (pool) => new PoolRow(pool));

// What happens: workers by asking, jobs by events

let looking = false;
async function lookAtWorkers() {
  if (document.hidden || looking) return;
  looking = true;
  try {
    const found = await get("/page/workers");
    workers.clear();
    for (const worker of found.workers) workers.set(worker.uuid, worker);
    redraw("workers");
    redraw("jobs"); // how long they have taken
  } catch { /* showStale says it */ }
  looking = false;
}

// Takes what is known of a job.  A job that is over stays so: an answer may be older than an event.
function keep(job) {
  const known = jobs.get(job.id);
  if (known) {
    if (OVER.has(known.state) && !OVER.has(job.state)) return;
    counts[known.state] -= 1;
  } else insert(job.id);
  counts[job.state] += 1;
  jobs.set(job.id, job);
  if (job.state === "running") running.set(job.id, job);
  else running.delete(job.id);
  if (order.length > MOST_JOBS) forget(order.pop());
  redraw("jobs");
  redraw("workers");
}

function insert(id) {
  if (!order.length || id < order.at(-1)) order.push(id);
  else {
    let [low, high] = [0, order.length];
    while (low < high) {
      const middle = (low + high) >> 1;
      if (order[middle] > id) low = middle + 1;
      else high = middle;
    }
    order.splice(low, 0, id);
  }
}

function forget(id) {
  counts[jobs.get(id).state] -= 1;
  jobs.delete(id);
  running.delete(id);
}

async function loadJobs() {
  const page = await get("/v1/jobs?limit=200");
  while (order.length) forget(order.pop());
  for (const job of page.jobs) keep(job);
  nextPage = page.next;
  redraw("jobs");
  await loadPools();
}

async function loadPools() {
  const page = await get("/v1/pools?limit=50");
  pools.clear();
  for (const pool of page.pools) pools.set(pool.id, pool);
  redraw("pools");
}

async function loadOlder() {
  const page = await get(`/v1/jobs?limit=1000&after=${encodeURIComponent(nextPage)}`);
  for (const job of page.jobs) keep(job);
  nextPage = page.next;
  redraw("jobs");
}

const unknown = new Set(); // jobs of which an event has said less than is shown
const timers = {};
function soon(name, what) {
  timers[name] ??= setTimeout(() => {
    delete timers[name];
    trying(what);
  }, DRAW);
}

// Asks for those jobs: many by the page of the newest, the others one by one, a few at a time.
async function learn() {
  if (unknown.size > AT_ONCE) {
    for (const job of (await get("/v1/jobs?limit=200")).jobs) {
      unknown.delete(job.id);
      keep(job);
    }
  }
  for (const id of [...unknown].slice(0, AT_ONCE)) {
    unknown.delete(id);
    keep(await get(`/v1/jobs/${id}`));
  }
  if (unknown.size) soon("learn", learn);
}

function heardEvent(event) {
  heardAt = Date.now();
  const change = JSON.parse(event.data);
  const job = jobs.get(change.job);
  if (job) {
    const times = { started: change.state === "running" ? change.at : job.started, ended: OVER.has(change.state) ? change.at : null };
    keep({ ...job, ...times, state: change.state, exit_status: change.exit_status, signal: change.signal, worker: change.worker || job.worker });
  }
  if (!job || (change.state !== "succeeded" && change.state !== "queued")) { // the event has no reason and no instance
    unknown.add(change.job);
    soon("learn", learn);
  }
  if (change.pool) soon("pools", loadPools);
}

function listen() {
  const events = new EventSource("/v1/events");
  let opened = false;
  events.addEventListener("job", heardEvent);
  events.addEventListener("reset", () => trying(loadJobs));
  events.addEventListener("error", () => {
    if (events.readyState === EventSource.CLOSED) setTimeout(listen, POLL);
  });
  events.addEventListener("open", () => {
    if (!opened) trying(loadJobs); // later, the server tells what was missed
    opened = true;
  });
}

// The output of one job

let following = null; // what ends it
async function showOutput(id) {
  const dialog = one("output");
  one("output-title").textContent = `Output of ${id}`;
  dialog.dataset.job = id;
  dialog.querySelector("input[value=stdout]").checked = true;
  if (!dialog.open) dialog.showModal();
  await followOutput();
}

function outputClosed() {
  following?.abort();
  // The browser has given the focus back, if the button is still there.
  const id = one("output").dataset.job;
  if (document.activeElement === document.body) (jobTable.rows.get(id)?.output || document.querySelector("#jobs .wide")).focus();
}

async function followOutput() {
  following?.abort();
  const controller = (following = new AbortController());
  const stream = document.querySelector("input[name=stream]:checked").value;
  const screen = new Screen(one("output-text"), controller.signal);
  const state = one("output-state");
  state.textContent = "live";
  try {
    const answer = await ask(`/v1/jobs/${one("output").dataset.job}/${stream}?follow=1`, { signal: controller.signal });
    const reader = answer.body.pipeThrough(new TextDecoderStream()).getReader();
    for (let part = await reader.read(); !part.done; part = await reader.read()) {
      heardAt = Date.now();
      await screen.write(part.value);
      if (controller.signal.aborted) return;
    }
    await screen.end();
    if (!controller.signal.aborted) state.textContent = "that was all";
  } catch (error) {
    if (controller.signal.aborted) return;
    state.textContent = error instanceof Refused ? error.message : "cut off: the job was not run to its end, or the server has gone";
  }
}

// Text with the colours of a terminal (ECMA-48, SGR); all other escapes are left out, and a carriage return ends a line.
const ESCAPE = /(\x1b\[[0-9;:?]*[ -/]*[@-~]|\x1b\][^\x07\x1b]*(?:\x07|\x1b\\)|\x1b[^[\]])/;
const STYLES = { 1: "bold", 2: "dim", 3: "italic", 4: "under" };
const AHEAD = 200_000; // characters that wait to be drawn before more is read

class Screen {
  // Nothing is drawn any more when `signal` has come: the element is another one's.
  constructor(element, signal) {
    this.element = element;
    this.signal = signal;
    this.element.replaceChildren();
    this.style = new Set();
    this.colours = { f: "", b: "" };
    this.rest = ""; // an escape or a line's end of which a part is still to come
    this.size = 0;
    this.waiting = [];
    this.ahead = 0;
    this.drawing = null;
  }

  // Returns when more may come.
  async write(text) {
    const pieces = (this.rest + text).split(ESCAPE);
    const last = pieces.pop();
    const begun = last.endsWith("\r") ? last.length - 1 : last.lastIndexOf("\x1b");
    this.rest = begun >= 0 && last.length - begun < 4096 ? last.slice(begun) : "";
    pieces.push(this.rest ? last.slice(0, begun) : last);
    for (const piece of pieces) {
      if (!piece.startsWith("\x1b")) this.add(piece);
      else if (/^\x1b\[[0-9;]*m$/.test(piece)) this.dress(piece.slice(2, -1).split(";").map(Number));
    }
    this.drawing ??= new Promise((resolve) => setTimeout(() => requestAnimationFrame(() => resolve(this.flush())), 100));
    if (this.ahead > AHEAD) await this.drawing;
  }

  async end() {
    this.add(this.rest);
    this.rest = "";
    await this.write("");
    await this.drawing;
  }

  add(piece) {
    const text = piece.replace(/\r+\n?/g, "\n").replace(/[\x00-\x08\x0b-\x1f\x7f]/g, "");
    if (!text) return;
    const classes = [...this.style, this.colours.f, this.colours.b].filter(Boolean).join(" ");
    if (this.waiting.at(-1)?.[0] === classes) this.waiting.at(-1)[1] += text;
    else this.waiting.push([classes, text]);
    this.ahead += text.length;
  }

  dress(numbers) {
    for (let index = 0; index < numbers.length; index += 1) {
      const number = numbers[index];
      if (number === 0) {
        this.style.clear();
        this.colours = { f: "", b: "" };
      } else if (STYLES[number]) this.style.add(STYLES[number]);
      else if (number === 22) { this.style.delete("bold"); this.style.delete("dim"); }
      else if (number === 23) this.style.delete("italic");
      else if (number === 24) this.style.delete("under");
      else if (number === 39) this.colours.f = "";
      else if (number === 49) this.colours.b = "";
      else if ((number >= 30 && number <= 37) || (number >= 90 && number <= 97)) this.colours.f = `f${number}`;
      else if (number >= 40 && number <= 47) this.colours.b = `b${number}`;
      else if (number >= 100 && number <= 107) this.colours.b = `b${number - 60}`;
      else if (number === 38 || number === 48) {
        const one256 = numbers[index + 1] === 5 ? numbers[index + 2] : NaN; // of these, the first sixteen are shown
        if (one256 < 16) this.dress([one256 % 8 + (number === 38 ? (one256 < 8 ? 30 : 90) : 40)]);
        index += numbers[index + 1] === 5 ? 2 : 4;
      }
    }
  }

  flush() {
    this.drawing = null;
    if (this.signal.aborted) return;
    const stays = this.element.scrollHeight - this.element.scrollTop - this.element.clientHeight < 40;
    const made = document.createDocumentFragment();
    for (const [classes, text] of this.waiting.slice(-MOST_PIECES)) {
      const shown = text.slice(-MOST_OUTPUT);
      made.append(make("span", shown, classes));
      this.size += shown.length;
    }
    this.waiting = [];
    this.ahead = 0;
    this.element.append(made);
    while ((this.size > MOST_OUTPUT || this.element.childElementCount > MOST_PIECES) && this.element.childElementCount > 1) {
      this.size -= this.element.firstElementChild.textContent.length;
      this.element.firstElementChild.remove();
    }
    if (stays) this.element.scrollTop = this.element.scrollHeight;
  }
}

// Starting a job

let choices = "";
function fillChoices() {
  const form = one("start-form");
  if (!may("submitter")) return;
  const { app, workers: list } = form.elements;
  if (app.options.length !== me.apps.length) app.replaceChildren(...me.apps.map((name) => new Option(name, name)));
  const there = [...workers.values()].filter((worker) => !worker.gone && worker.app === app.value);
  const wanted = JSON.stringify(there.map((worker) => [worker.uuid, worker.name]));
  if (wanted === choices || list === document.activeElement) return;
  choices = wanted;
  const chosen = new Set([...list.selectedOptions].map((option) => option.value));
  list.replaceChildren(...there.map((worker) => new Option(worker.name, worker.uuid, false, chosen.has(worker.uuid))));
}

async function startJob(event) {
  event.preventDefault();
  const form = one("start-form").elements;
  const lines = form.args.value.split("\n");
  while (lines.length && !lines.at(-1)) lines.pop();
  const wanted = { app: form.app.value, args: lines, stdin: form.stdin.value };
  const needs = form.needs.value.split(",").map((text) => text.trim()).filter(Boolean);
  if (needs.length) wanted.needs = needs;
  const chosen = [...form.workers.selectedOptions].map((option) => option.value);
  if (form.all.checked) wanted.workers = "all";
  else if (chosen.length) wanted.workers = chosen;
  const told = one("start-answer");
  told.textContent = "starting ...";
  try {
    const answer = await (await post("/v1/jobs", wanted)).json();
    const made = answer.jobs || [answer];
    for (const job of made) keep(job);
    told.textContent = made.length === 1 ? `job ${made[0].id}` : `pool ${answer.id} with ${plural(made.length, "job")}`;
    if (answer.jobs) soon("pools", loadPools);
  } catch (error) {
    told.textContent = error instanceof Refused ? error.message : "the server does not answer";
  }
}

// Plots

const PLOTS = [
  ["Slots", [["busy", "busy", "#2563a8"], ["all", "slots", "#57606a"]]],
  ["Load of the workers, on average (1: all processors are busy)", [["load", "load", "#a05a00"]]],
  ["Jobs", [["queued", "queued", "#a05a00"], ["running", "jobs", "#2563a8"]]],
  ["Jobs that ended, a minute", [["succeeded", "succeeded", "#2e8b57"], ["other", "other", "#c0392b"]]],
];
const drawn = [];
const DAY = 86400; // seconds; of a day there is a sample each minute

let pastAt = 0;
async function lookAtHistory() {
  const span = Number(one("span").value);
  if (document.hidden || Date.now() - pastAt < (span === DAY ? 60_000 : 4000)) return;
  pastAt = Date.now();
  try {
    const { samples } = await get(`/page/history?seconds=${span}`);
    drawPlots(samples);
  } catch { /* showStale says it */ }
}

function lookAgain() {
  pastAt = 0;
  lookAtHistory();
}

const colour = (name) => () => getComputedStyle(document.documentElement).getPropertyValue(name);
function plotWidth() { // two beside each other, if there is room
  const all = one("plots").clientWidth;
  return Math.max(280, Math.floor((all < 800 ? all : all / 2) - 24));
}
const shownTime = (at, options) => new Date(at * 1000).toLocaleTimeString([], options);

function drawPlots(samples) {
  const times = samples.map((sample) => sample.at);
  const latest = samples.at(-1);
  for (const [index, [title, series]] of PLOTS.entries()) {
    const data = [times, ...series.map(([, name]) => samples.map((sample) => sample[name]))];
    if (drawn[index]) drawn[index].setData(data);
    else drawn[index] = newPlot(title, series, data);
    drawn[index].root.setAttribute("aria-label", `${title}: ${series.map(([label, name]) => `${label} ${latest ? latest[name] : 0}`).join(", ")} now`);
  }
}

function newPlot(title, series, data) {
  const outer = make("div", "", "plot");
  outer.append(make("h3", title));
  one("plots").append(outer);
  const axis = { stroke: colour("--fore"), grid: { stroke: colour("--line") }, ticks: { stroke: colour("--line") } };
  const values = (plot, ticks) => ticks.map((at) => shownTime(at, ticks.some((one) => one % 60) ? {} : { hour: "2-digit", minute: "2-digit" }));
  const options = { width: plotWidth(), height: 170, axes: [{ ...axis, values, space: 90 }, { ...axis, size: 55 }], scales: { y: { range: (u, low, high) => [0, Math.max(1, high)] } },
    series: [{ label: "time", value: (plot, at) => (at == null ? "--" : shownTime(at)) }, ...series.map(([label, , stroke]) => ({ label, stroke, width: 2 }))] };
  const made = new uPlot(options, data, outer);
  made.root.setAttribute("role", "img");
  return made;
}

function fitPlots() {
  for (const plot of drawn) if (plot.width !== plotWidth()) plot.setSize({ width: plotWidth(), height: 170 });
}

// Beginning

const DRAWERS = { workers: drawWorkers, jobs: drawJobs, pools: drawPools };

async function begin() {
  Object.assign(me, await get("/page/identity"));
  one("who").textContent = `${me.name}, ${me.role}`;
  for (const element of document.querySelectorAll("[data-needs]")) element.hidden = !may(element.dataset.needs);
  for (const element of document.querySelectorAll("[data-part]")) element.hidden = !me.parts.includes(element.dataset.part);
  one("logout").hidden = !me.session;
  for (const state of STATES) one("job-state").append(new Option(state, state));
  for (const [id, part] of [["worker-filter", "workers"], ["worker-gone", "workers"], ["job-filter", "jobs"], ["job-state", "jobs"]])
    one(id).addEventListener("input", () => redrawNow(part));
  one("older").addEventListener("click", () => trying(loadOlder));
  one("start-form").addEventListener("submit", startJob);
  one("start-form").elements.app.addEventListener("change", fillChoices);
  one("output").addEventListener("close", outputClosed);
  for (const choice of document.querySelectorAll("input[name=stream]")) choice.addEventListener("change", followOutput);
  one("span").addEventListener("change", lookAgain);
  matchMedia("(prefers-color-scheme: dark)").addEventListener("change", () => drawn.forEach((plot) => plot.redraw(false, true)));
  addEventListener("resize", fitPlots);
  document.addEventListener("visibilitychange", () => { shownAt = Date.now(); lookAtWorkers(); lookAtHistory(); });
  listen();
  lookAtWorkers();
  lookAtHistory();
  setInterval(lookAtWorkers, POLL);
  setInterval(lookAtHistory, 5000);
  setInterval(showStale, 1000);
}

function tryToBegin() {
  begin().catch(() => { showStale(); setTimeout(tryToBegin, POLL); });
}
tryToBegin();
