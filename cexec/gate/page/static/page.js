// The page of cgate: it shows the cluster and asks /v1 for everything it does.
//
// Contract: nothing that a worker, a job or a user has named is ever markup: it becomes text by `textContent`.  The page
// asks for workers every POLL seconds, hears of jobs by server-sent events, and draws at most twice a second.  It keeps
// MOST_JOBS jobs and shows ROWS of them.  When the server does not answer it says since when, and tries again.

const POLL = 3000; // milliseconds between two looks at the workers
const DRAW = 500; // milliseconds between two drawings
const MOST_JOBS = 10_000; // that are kept
const ROWS = 200; // that are shown at once
const MOST_OUTPUT = 1_000_000; // characters of an output that are shown: the last ones
const SIGNALS = ["SIGTERM", "SIGINT", "SIGHUP", "SIGQUIT", "SIGUSR1", "SIGUSR2"];
const STATES = ["queued", "running", "succeeded", "failed", "cancelled", "interrupted"];
const OVER = new Set(["succeeded", "failed", "cancelled", "interrupted"]);

const one = (id) => document.getElementById(id);
const me = { name: "", role: "viewer", apps: [], parts: [] };
const workers = new Map(); // UUID to worker
const jobs = new Map(); // id to job
const pools = new Map(); // id to pool
let heardAt = Date.now(); // when the server last answered
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

const get = async (path) => (await ask(path)).json();
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
const clock = (text) => (text ? new Date(text).toLocaleTimeString() : "");
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

let saying = 0;
function say(text) {
  one("stale").textContent = text;
  clearTimeout(saying);
  saying = setTimeout(showStale, 8000);
}

function showStale() {
  const silent = Date.now() - heardAt > 3 * POLL;
  one("stale").textContent = silent ? `no answer from the server since ${new Date(heardAt).toLocaleTimeString()}; trying again` : "";
}

// Drawing: what has changed is drawn together, twice a second at most, and only while the page is seen

const dirty = new Set();
let drawing = 0;
function redraw(part) {
  dirty.add(part);
  if (!drawing) drawing = setTimeout(() => requestAnimationFrame(draw), DRAW);
}
function draw() {
  drawing = 0;
  for (const part of [...dirty]) {
    dirty.delete(part);
    DRAWERS[part]();
  }
}

// Rows are kept by key, so that only those that have changed are made anew, and the focus stays where it is.
function fill(body, items, keyOf, textOf, build) {
  const there = new Map([...body.children].map((row) => [row.dataset.key, row]));
  let place = body.firstElementChild;
  for (const item of items) {
    const key = keyOf(item);
    const text = textOf(item);
    let row = there.get(key);
    there.delete(key);
    if (!row || row.dataset.text !== text) {
      const fresh = build(item);
      fresh.dataset.key = key;
      fresh.dataset.text = text;
      if (row && !row.contains(document.activeElement)) {
        if (place === row) place = row.nextElementSibling;
        row.remove();
        row = null;
      }
      if (row) {
        row.dataset.text = ""; // it is drawn anew when the focus has left it
      } else {
        row = fresh;
      }
    }
    if (row === place) place = place.nextElementSibling;
    else body.insertBefore(row, place);
  }
  for (const row of there.values()) row.remove();
}

function cells(row, values) {
  for (const value of values) {
    const cell = value instanceof Node ? value : make("td", String(value ?? ""));
    if (cell.tagName !== "TD" && cell.tagName !== "TH") {
      const outer = make("td");
      outer.append(cell);
      row.append(outer);
    } else row.append(cell);
  }
  return row;
}

function drawWorkers() {
  const wanted = one("worker-filter").value.toLowerCase();
  const gone = one("worker-gone").checked;
  const all = [...workers.values()].filter((worker) => gone || !worker.gone);
  const shown = all.filter((worker) => !wanted || JSON.stringify(worker).toLowerCase().includes(wanted));
  shown.sort((a, b) => a.gone - b.gone || a.name.localeCompare(b.name, undefined, { numeric: true }) || (a.uuid < b.uuid ? -1 : 1));
  const there = all.filter((worker) => !worker.gone);
  const sum = (name) => there.reduce((total, worker) => total + worker[name], 0);
  const sick = there.filter((worker) => worker.health !== "ok").length;
  one("worker-totals").textContent = `${plural(there.length, "worker")}, ${sum("running")} of ${plural(sum("slots"), "slot")} busy` +
    (sick ? `, ${sick} with trouble` : "");
  const here = new Map();
  for (const job of jobs.values()) if (job.state === "running" && job.instance) here.set(job.instance, [...(here.get(job.instance) || []), job]);
  fill(one("worker-rows"), shown.slice(0, 1000), (worker) => worker.uuid,
    (worker) => JSON.stringify([worker, (here.get(worker.uuid) || []).map((job) => job.id)]),
    (worker) => workerRow(worker, here.get(worker.uuid) || []));
  fillChoices();
}

function workerRow(worker, running) {
  const row = make("tr", "", worker.gone ? "gone" : "");
  const name = make("th", worker.name);
  name.scope = "row";
  name.title = worker.uuid;
  const load = document.createElement("meter");
  load.value = worker.load;
  load.setAttribute("aria-label", `load of ${worker.name}: ${worker.load.toFixed(2)}`);
  load.title = worker.load.toFixed(2);
  const labels = Object.entries(worker.labels).map(([key, value]) => (value ? `${key}=${value}` : key)).join(", ");
  const owners = [...new Set(running.map((job) => job.owner))].join(", ");
  return cells(row, [
    name, worker.app, worker.address, make("td", `${worker.running}/${worker.slots}`, "number"), load,
    make("td", worker.speed.toFixed(2), "number"), running.length ? `${running.length} for ${owners}` : "", labels,
    make("td", worker.gone ? "gone" : worker.health, worker.health === "ok" && !worker.gone ? "ok" : "trouble"),
    worker.gone ? "" : duration(Date.now() / 1000 - seconds(worker.since)), worker.gone ? clock(worker.last_seen) : "now",
  ]);
}

function drawJobs() {
  const wanted = one("job-filter").value.toLowerCase();
  const state = one("job-state").value;
  const counts = Object.fromEntries(STATES.map((name) => [name, 0]));
  const shown = [];
  for (const job of [...jobs.values()].sort((a, b) => (a.id < b.id ? 1 : -1))) {
    counts[job.state] += 1;
    if (shown.length < ROWS && (!state || job.state === state) && (!wanted || jobText(job).includes(wanted))) shown.push(job);
  }
  one("job-totals").textContent = STATES.filter((name) => counts[name]).map((name) => `${counts[name]} ${name}`).join(", ") || "no jobs";
  one("older").hidden = !nextPage || jobs.size >= MOST_JOBS;
  fill(one("job-rows"), shown, (job) => job.id, (job) => JSON.stringify(job), jobRow);
}

const jobText = (job) => `${job.id} ${job.app} ${job.args.join(" ")} ${job.worker || ""} ${job.owner} ${job.state} ${job.reason || ""}`.toLowerCase();

function how(job) {
  if (job.state === "failed" && job.exit_status != null) return `failed (${job.exit_status})`;
  return job.signal ? `${job.state} (${job.signal})` : job.state;
}

function jobRow(job) {
  const row = make("tr");
  const name = make("th", job.id.slice(0, 13));
  name.scope = "row";
  name.title = job.id;
  const state = make("td", how(job), job.state);
  if (job.reason) state.append(make("span", job.reason, "why"));
  const actions = make("td");
  actions.append(button("Output", `Output of job ${job.id}`, () => showOutput(job.id)));
  if (!OVER.has(job.state) && owns(job)) {
    const signals = document.createElement("select");
    signals.setAttribute("aria-label", `Send a signal to job ${job.id}`);
    for (const text of ["signal", ...SIGNALS]) signals.append(new Option(text, text === "signal" ? "" : text));
    signals.addEventListener("change", () => trying(async () => {
      const signal = signals.value;
      signals.value = "";
      if (signal) await post(`/v1/jobs/${job.id}/signal`, { signal });
    }));
    actions.append(" ", signals, " ", button("End", `End job ${job.id}`, () => trying(async () => {
      if (await sure(`Job ${job.id} of ${job.app} is ended, with everything that it has started.`)) await post(`/v1/jobs/${job.id}/cancel`, {});
    }), "grave"));
  }
  const took = job.started ? duration((seconds(job.ended) ?? Date.now() / 1000) - seconds(job.started)) : "";
  return cells(row, [name, state, actions, job.args.join(" "), job.worker, job.app, job.owner, clock(job.submitted), took]);
}

function drawPools() {
  const all = [...pools.values()].sort((a, b) => (a.id < b.id ? 1 : -1)).slice(0, ROWS);
  one("pools").hidden = !all.length;
  fill(one("pool-rows"), all, (pool) => pool.id, (pool) => JSON.stringify(pool), poolRow);
}

function poolRow(pool) {
  const row = make("tr");
  const name = make("th", pool.id.slice(0, 13));
  name.scope = "row";
  name.title = pool.id;
  const left = pool.jobs.filter((job) => !OVER.has(job.state)).length;
  const actions = make("td");
  if (pool.state === "running" && owns(pool)) {
    actions.append(button("End", `End pool ${pool.id}`, () => trying(async () => {
      if (await sure(`${plural(left, "job")} of pool ${pool.id} are ended.`)) await post(`/v1/pools/${pool.id}/kill`, {});
    }), "grave"));
  }
  return cells(row, [name, make("td", pool.state, pool.state), actions, pool.app, make("td", `${pool.jobs.length - left}/${pool.jobs.length}`, "number"),
    pool.owner, clock(pool.submitted)]);
}

// What happens: workers by asking, jobs by events

async function lookAtWorkers() {
  if (document.hidden) return;
  try {
    const found = await get("/page/workers");
    workers.clear();
    for (const worker of found.workers) workers.set(worker.uuid, worker);
    redraw("workers");
  } catch { /* showStale says it */ }
  if (!saying || one("stale").textContent.startsWith("no answer")) showStale();
}

function keep(job) {
  jobs.set(job.id, job);
  if (jobs.size > MOST_JOBS) jobs.delete(jobs.keys().next().value);
  redraw("jobs");
  redraw("workers");
}

async function loadJobs() {
  const page = await get("/v1/jobs?limit=200");
  jobs.clear();
  for (const job of page.jobs.reverse()) keep(job);
  nextPage = page.next;
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
}

const unknown = new Set(); // jobs of which an event has come, but no row
let asking = 0;
async function learn() {
  asking = 0;
  const few = [...unknown].slice(0, 50);
  const many = unknown.size > 50;
  unknown.clear();
  await trying(async () => {
    if (many) await loadJobs();
    else for (const id of few) keep(await get(`/v1/jobs/${id}`));
  });
}

function heardEvent(event) {
  heardAt = Date.now();
  const change = JSON.parse(event.data);
  const job = jobs.get(change.job);
  if (!job || OVER.has(change.state) || !job.worker) {
    unknown.add(change.job);
    if (!asking) asking = setTimeout(learn, DRAW);
  }
  if (job) keep({ ...job, state: change.state, exit_status: change.exit_status, signal: change.signal, worker: change.worker || job.worker });
  if (change.pool) setTimeout(() => trying(loadPools), DRAW);
}

function listen() {
  const events = new EventSource("/v1/events");
  events.addEventListener("job", heardEvent);
  events.addEventListener("reset", () => trying(loadJobs));
  events.addEventListener("error", () => {
    if (events.readyState === EventSource.CLOSED) setTimeout(listen, POLL);
  });
  events.addEventListener("open", () => trying(loadJobs));
}

// The output of one job

let following = null; // what ends it
async function showOutput(id) {
  const dialog = one("output");
  one("output-title").textContent = `Output of ${id}`;
  dialog.dataset.job = id;
  if (!dialog.open) dialog.showModal();
  await followOutput();
}

async function followOutput() {
  following?.abort();
  const controller = (following = new AbortController());
  const stream = document.querySelector("input[name=stream]:checked").value;
  const text = one("output-text");
  text.replaceChildren();
  const screen = new Screen(text);
  one("output-state").textContent = "live";
  try {
    const answer = await ask(`/v1/jobs/${one("output").dataset.job}/${stream}?follow=1`, { signal: controller.signal });
    const reader = answer.body.pipeThrough(new TextDecoderStream()).getReader();
    for (let part = await reader.read(); !part.done; part = await reader.read()) {
      heardAt = Date.now();
      screen.write(part.value);
    }
    one("output-state").textContent = "that was all";
  } catch (error) {
    if (!controller.signal.aborted) one("output-state").textContent = error instanceof Refused ? error.message : "cut off: the job was not run to its end, or the server has gone";
  }
}

// Text with the colours of a terminal (ECMA-48, SGR); all other escapes are left out.
class Screen {
  constructor(element) {
    this.element = element;
    this.style = [];
    this.rest = "";
    this.size = 0;
    this.waiting = [];
    this.timer = 0;
  }

  write(text) {
    const pieces = (this.rest + text).split(/(\x1b\[[0-9;:?]*[ -/]*[@-~]|\x1b\][^\x07\x1b]*(?:\x07|\x1b\\)|\x1b[^[\]])/);
    const last = pieces.pop();
    const begun = last.lastIndexOf("\x1b");
    this.rest = begun >= 0 && last.length - begun < 4096 ? last.slice(begun) : "";
    pieces.push(this.rest ? last.slice(0, begun) : last);
    for (const piece of pieces) {
      if (piece.startsWith("\x1b")) {
        if (/^\x1b\[[0-9;]*m$/.test(piece)) this.dress(piece.slice(2, -1).split(";").map(Number));
      } else if (piece) this.waiting.push([this.classes(), piece.replace(/[\x00-\x08\x0b-\x1f\x7f]/g, "")]);
    }
    if (!this.timer) this.timer = setTimeout(() => requestAnimationFrame(() => this.flush()), 100);
  }

  dress(numbers) {
    for (const number of numbers) {
      const drop = (test) => { this.style = this.style.filter((name) => !test(name)); };
      const names = { 1: "bold", 2: "dim", 3: "italic", 4: "under" };
      if (number === 0) this.style = [];
      else if (names[number]) this.style.push(names[number]);
      else if (number === 22) drop((name) => name === "bold" || name === "dim");
      else if (number === 39) drop((name) => name.startsWith("f"));
      else if (number === 49) drop((name) => name.startsWith("b") && name !== "bold");
      else if ((number >= 30 && number <= 37) || (number >= 90 && number <= 97)) { drop((name) => /^f\d/.test(name)); this.style.push(`f${number}`); }
      else if (number >= 40 && number <= 47) { drop((name) => /^b\d/.test(name)); this.style.push(`b${number}`); }
      else if (number === 38 || number === 48) return; // 256 and more colours are not shown
    }
  }

  classes() {
    return this.style.join(" ");
  }

  flush() {
    this.timer = 0;
    const stays = this.element.scrollHeight - this.element.scrollTop - this.element.clientHeight < 40;
    const made = document.createDocumentFragment();
    for (const [classes, text] of this.waiting) {
      made.append(make("span", text.slice(-MOST_OUTPUT), classes));
      this.size += text.length;
    }
    this.waiting = [];
    this.element.append(made);
    while (this.size > MOST_OUTPUT && this.element.childElementCount > 1) {
      this.size -= this.element.firstElementChild.textContent.length;
      this.element.firstElementChild.remove();
    }
    if (stays) this.element.scrollTop = this.element.scrollHeight;
  }
}

// Starting a job

function fillChoices() {
  const form = one("start-form");
  if (!may("submitter") || form.contains(document.activeElement)) return;
  const app = form.elements.app;
  if (app.options.length !== me.apps.length) app.replaceChildren(...me.apps.map((name) => new Option(name, name)));
  const names = [...workers.values()].filter((worker) => !worker.gone && worker.app === app.value);
  const list = form.elements.workers;
  const chosen = new Set([...list.selectedOptions].map((option) => option.value));
  list.replaceChildren(...names.map((worker) => new Option(worker.name, worker.uuid, false, chosen.has(worker.uuid))));
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
    told.textContent = answer.jobs ? `pool ${answer.id} with ${plural(answer.jobs.length, "job")}` : `job ${answer.id}`;
    if (!answer.jobs) keep(answer);
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

async function lookAtHistory() {
  if (document.hidden) return;
  const span = Number(one("span").value);
  try {
    const { samples } = await get(`/page/history?seconds=${span}`);
    drawPlots(samples);
  } catch { /* showStale says it */ }
}

function drawPlots(samples) {
  const place = one("plots");
  const times = samples.map((sample) => sample.at);
  const ink = getComputedStyle(document.documentElement).getPropertyValue("--fore");
  const line = getComputedStyle(document.documentElement).getPropertyValue("--line");
  const width = Math.max(280, Math.min(700, place.clientWidth - 8));
  for (const [index, [title, series]] of PLOTS.entries()) {
    const data = [times, ...series.map(([, name]) => samples.map((sample) => sample[name]))];
    if (!drawn[index]) {
      const outer = make("div", "", "plot");
      outer.append(make("h3", title));
      place.append(outer);
      const axis = { stroke: ink, grid: { stroke: line }, ticks: { stroke: line } };
      const options = { width, height: 170, axes: [axis, { ...axis, size: 55 }], scales: { y: { range: (u, low, high) => [0, Math.max(1, high)] } },
        series: [{}, ...series.map(([label, , stroke]) => ({ label, stroke, width: 2 }))] };
      drawn[index] = new uPlot(options, data, outer);
      drawn[index].root.setAttribute("role", "img");
    } else drawn[index].setData(data);
    const latest = samples.at(-1);
    drawn[index].root.setAttribute("aria-label", `${title}: ${series.map(([label, name]) => `${label} ${latest ? latest[name] : 0}`).join(", ")} now`);
  }
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
    one(id).addEventListener("input", () => redraw(part));
  one("older").addEventListener("click", () => trying(loadOlder));
  one("start-form").addEventListener("submit", startJob);
  one("start-form").elements.app.addEventListener("change", fillChoices);
  one("output").addEventListener("close", () => following?.abort());
  for (const choice of document.querySelectorAll("input[name=stream]")) choice.addEventListener("change", followOutput);
  one("span").addEventListener("change", lookAtHistory);
  document.addEventListener("visibilitychange", () => { lookAtWorkers(); lookAtHistory(); });
  listen();
  lookAtWorkers();
  lookAtHistory();
  setInterval(lookAtWorkers, POLL);
  setInterval(lookAtHistory, 5000);
}

function tryToBegin() {
  begin().catch(() => { showStale(); setTimeout(tryToBegin, POLL); });
}
tryToBegin();
