// The page of cgate: it shows the cluster and asks /v1 for everything it does.
//
// Contract: that of shared.js.  The page asks for workers every POLL milliseconds and hears of jobs by server-sent events.
// It keeps MOST_JOBS jobs.  When the server does not answer, it tries again.

import { followOutput, outputClosed, showOutput } from "./output.js";
import { fitPlots, lookAgain, lookAtHistory, recolourPlots } from "./plots.js";
import { beginRuns } from "./runs.js";
import {
  POLL, Refused, Row, Table, button, drawers, duration, get, heard, inOrder, make, may, me, one, owns, plural, post, redraw,
  redrawNow, seconds, showStale, shownAgain, sure, trying, when,
} from "./shared.js";

const MOST_JOBS = 10_000; // that are kept
const AT_ONCE = 20; // jobs that are asked for one by one
const LEARN = 500; // milliseconds until what an event has not said is asked for
const SIGNALS = ["SIGTERM", "SIGINT", "SIGHUP", "SIGQUIT", "SIGUSR1", "SIGUSR2"];
const STATES = ["queued", "running", "succeeded", "failed", "cancelled", "interrupted"];
const OVER = new Set(["succeeded", "failed", "cancelled", "interrupted"]);

const workers = new Map(); // UUID to worker
const jobs = new Map(); // id to job
const order = []; // the ids of all jobs, the newest first
const running = new Map(); // id to job
const counts = Object.fromEntries(STATES.map((name) => [name, 0]));
const pools = new Map(); // id to pool
let nextPage = null; // of older jobs

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
  }, LEARN);
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
  heard();
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
  else if (chosen.length === 1) (wanted.needs ??= []).push(`instance=${chosen[0]}`); // one job, for this worker alone
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

// Beginning

Object.assign(drawers, { workers: drawWorkers, jobs: drawJobs, pools: drawPools });

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
  matchMedia("(prefers-color-scheme: dark)").addEventListener("change", recolourPlots);
  addEventListener("resize", fitPlots);
  document.addEventListener("visibilitychange", () => { shownAgain(); lookAtWorkers(); lookAtHistory(); });
  listen();
  if (me.parts.includes("runs")) beginRuns();
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
