// Runs of cmap: the list of them, and the map, the workers and the failed tasks of the one that is chosen.
//
// Contract: that of shared.js.  The page asks for the list, and for what has changed of the chosen run, every POLL
// milliseconds, or more seldom where they take long to draw.  The map is a canvas of at most MOST_CELLS cells, of which
// only those that have changed are drawn; what it shows is said in words beside it.

import {
  Refused, Row, Table, button, drawers, duration, get, inOrder, make, may, one, plural, post, redraw, redrawNow, seconds,
  trying, untilNextLook, when,
} from "./shared.js";

const MOST_CELLS = 12_000;
const MAP_HEIGHT = 320; // CSS pixels that the map may have
const SIZES = [18, 14, 11, 9, 7, 5]; // CSS pixels of a cell with its gap
const LIST = 200; // runs of one page
const FAILED = 100; // failed tasks of one page
const KINDS = { d: ["done", "--good"], f: ["failed", "--bad"], r: ["running", "--busy"], w: ["waiting", "--soft"], n: ["no task", ""] };
const STATES = { running: "running", paused: "paused", done: "over", left: "ended, tasks are left", unread: "not read yet", unreadable: "cannot be read" };
const CLASSES = { running: "running", paused: "queued", done: "succeeded", left: "trouble", unreadable: "trouble" };

const ALIKE = /^cexec (-n )?\S+ -- /; // the begin of the command of every task whose words are arguments

const runs = new Map(); // id to run
let problems = [];
let pages = 1; // of the list, that are shown
let more = false;
let chosen = null; // the id of a run
let run = null; // what is known of that
let map = null;
let failed = [];
let moreFailed = null;

const percent = (part, all) => (all ? `(${Math.floor((100 * part) / all)}\u00a0%)` : "");
const number = (value) => value.toLocaleString();
function rate(value) {
  if (!value) return "0/s";
  return value >= 0.1 ? `${value.toFixed(value < 10 ? 2 : 0)}/s` : `${(value * 3600).toFixed(0)}/h`;
}
const over = (counts) => counts.done + counts.failed;
const all = (one) => one.total ?? Object.values(one.counts).reduce((sum, count) => sum + count, 0);

class RunRow extends Row {
  constructor(found) {
    super(found.id, found.id, ["", "", "", "number", "number", "number", "number", "", "", ""]);
    this.cells[1].append(button("Show", `Show the run ${found.name}`, () => choose(found.id)));
  }

  show(found) {
    this.element.classList.toggle("chosen", found.id === chosen);
    this.set(0, found.name);
    this.set(2, found.problem || STATES[found.state] || found.state, CLASSES[found.state] || "");
    const { counts } = found;
    this.set(3, counts ? `${number(over(counts))}/${number(all(found))}` : "");
    this.set(4, counts ? number(counts.failed) : "", counts?.failed ? "number trouble" : "number");
    this.set(5, counts ? number(counts.running) : "");
    this.set(6, found.rate == null ? "" : rate(found.rate));
    this.set(7, found.eta == null ? "" : duration(found.eta));
    this.set(8, when(found.started));
    this.set(9, (found.command || "").slice(0, 300));
  }
}

function drawRuns() {
  const wanted = one("run-filter").value.toLowerCase();
  const shown = [...runs.values()].filter((found) => `${found.name} ${found.directory} ${found.command} ${found.host} ${STATES[found.state]}`.toLowerCase().includes(wanted));
  const live = [...runs.values()].filter((found) => found.state === "running" || found.state === "paused").length;
  one("run-totals").textContent = runs.size ? `${plural(runs.size, "run")}${more ? " and more" : ""}, ${live} of them running` : "no runs";
  one("run-problems").textContent = problems.join("; ");
  one("more-runs").hidden = !more;
  runTable.show(shown, (found) => found.id);
}

class WorkRow extends Row {
  constructor(work) {
    super(work.name, work.name, ["", "number", "number", "number", "number", "number", ""]);
  }

  show(work) {
    this.set(0, work.name);
    this.set(1, number(work.running));
    this.set(2, number(work.succeeded));
    this.set(3, number(work.failed), work.failed ? "number trouble" : "number");
    this.set(4, duration(work.real));
    this.set(5, work.cpu == null ? "" : duration(work.cpu));
    this.set(6, when(work.last));
  }
}

class FailedRow extends Row {
  constructor(row) {
    super(row.task, "", ["", "said", "words", "why", "", "number", ""]);
  }

  show(row) {
    this.set(0, row.task);
    this.set(1, row.last_line ?? "");
    this.set(2, row.command.replace(ALIKE, ""));
    this.cells[2].title = row.command;
    this.set(3, row.reason);
    this.set(4, row.worker);
    this.set(5, duration(row.seconds));
    this.set(6, when(row.started));
  }
}

const FIGURES = [
  ["Tasks", (r) => `${number(over(r.counts))} of ${number(all(r))} over ${percent(over(r.counts), all(r))}`],
  ["To go", (r) => (r.eta == null ? "" : duration(r.eta))],
  ["Rate of the last 15 minutes", (r) => rate(r.rate)],
  ["Running for", (r) => (r.process ? duration(r.elapsed) : "")],
  ["Took", (r) => (r.process ? "" : duration(r.elapsed))],
  ["Real time of all attempts", (r) => duration(r.real)],
  ["Processor time", (r) => (r.cpu == null ? "not known" : duration(r.cpu))],
  ["Weight", (r) => (r.weight == null ? "" : number(r.weight))],
  ["Started", (r) => when(r.started)],
  ["Where", (r) => r.process || r.host || ""],
  ["Runs with this journal", (r) => (r.runs > 1 ? number(r.runs) : "")],
  ["Journal", (r) => `${r.directory}/${r.name}${r.owner ? ` of ${r.owner}` : ""}`],
  ["Command", (r) => r.command || ""],
];
const figures = new Map(); // from a name to its parts of the list

function drawFigures() {
  for (const [name, tell] of FIGURES) {
    let parts = figures.get(name);
    if (!parts) {
      parts = [make("div"), make("dt", name), make("dd")];
      if (name === "Command" || name === "Journal") parts[2].className = "words";
      parts[0].append(parts[1], parts[2]);
      one("run-figures").append(parts[0]);
      figures.set(name, parts);
    }
    const text = run.counts ? tell(run) : "";
    if (parts[2].textContent !== text) parts[2].textContent = text;
    parts[0].hidden = !text;
  }
}

function drawRun() {
  one("run").hidden = !run;
  if (!run) return;
  one("run-title").textContent = run.name;
  const state = one("run-state");
  state.textContent = run.problem ? `${STATES[run.state]}: ${run.problem}` : STATES[run.state] || run.state;
  state.className = CLASSES[run.state] || "";
  drawFigures();
  one("run-control").hidden = !run.control || !may("admin");
  one("run-pause").hidden = run.state !== "running";
  one("run-continue").hidden = run.state !== "paused";
  const weight = one("run-weight");
  if (document.activeElement !== weight && !weight.dataset.changed && run.weight) weight.value = run.weight;
  one("run-parts").hidden = !run.counts;
  if (!run.counts) return;
  drawLegend();
  drawMap();
  workTable.show((run.workers || []).sort((a, b) => inOrder(a.name, b.name)), (work) => work.name);
  one("run-more-workers").textContent = run.more_workers ? `and ${plural(run.more_workers, "more worker")}` : "";
  one("run-failed").hidden = !failed.length;
  one("failed-totals").textContent = `${number(failed.length)} of ${plural(run.counts.failed, "task")} shown`;
  one("more-failed").hidden = !moreFailed;
  failedTable.most = Math.max(failedTable.most, failed.length);
  failedTable.show(failed, (row) => String(row.task));
}

const runTable = new Table("runs", "run-rows", (found) => new RunRow(found));
const workTable = new Table("run", "work-rows", (work) => new WorkRow(work));
const failedTable = new Table("run", "failed-rows", (row) => new FailedRow(row));

// The map

function drawLegend() {
  const words = ["d", "f", "r", "w"].map((code) => [code, run.counts[KINDS[code][0]]]);
  const items = one("run-legend").children;
  for (const [index, [code, count]] of words.entries()) {
    const text = `${KINDS[code][0]} ${number(count)}`;
    if (items[index].lastChild.textContent !== text) items[index].lastChild.textContent = text;
  }
  const cell = map && map.cell > 1 ? `; each square is ${map.cell} tasks and shows what is the matter with any of them` : "";
  one("run-map").setAttribute("aria-label", `Map of ${plural(all(run), "task")}: ${words.map(([code, count]) => `${count} ${KINDS[code][0]}`).join(", ")}${cell}`);
  one("run-cell").textContent = cell.slice(2);
}

// How the cells of so many tasks are laid out: size of a cell, columns, and cells at most.
function layout(tasks) {
  const width = Math.max(200, one("run-map-place").clientWidth);
  for (const size of SIZES) {
    const columns = Math.floor(width / size);
    const fits = columns * Math.floor(MAP_HEIGHT / size);
    if (tasks <= fits || size === SIZES.at(-1)) return { size, columns, most: Math.min(fits, MOST_CELLS) };
  }
}

function unpack(states) {
  const codes = [];
  for (const [, count, code] of states.matchAll(/(\d*)([ndwrf])/g)) for (let left = Number(count || 1); left > 0; left -= 1) codes.push(code);
  return codes;
}

let painted = null; // { key, codes }: what the canvas shows

function drawMap() {
  const canvas = one("run-map");
  if (!map) return;
  const codes = map.codes;
  const { size, columns } = map.layout;
  const rows = Math.max(1, Math.ceil(codes.length / columns));
  const scale = devicePixelRatio || 1;
  const style = getComputedStyle(document.documentElement);
  const colours = Object.fromEntries(Object.entries(KINDS).map(([code, [, name]]) => [code, name && style.getPropertyValue(name)]));
  const key = JSON.stringify([chosen, size, columns, rows, scale, colours]);
  const context = canvas.getContext("2d");
  if (painted?.key !== key) {
    canvas.width = columns * size * scale;
    canvas.height = rows * size * scale;
    canvas.style.width = `${columns * size}px`;
    canvas.style.height = `${rows * size}px`;
    context.scale(scale, scale);
    painted = { key, codes: [] };
  }
  for (let index = 0; index < codes.length; index += 1) {
    if (codes[index] === painted.codes[index]) continue;
    drawCell(context, (index % columns) * size, Math.floor(index / columns) * size, size, codes[index], colours[codes[index]]);
  }
  painted.codes = codes;
}

// A state is told by its form, too: done is full, failed has a bar through it, running is a frame, waiting is a dot.
function drawCell(context, x, y, size, code, colour) {
  const side = size - 1;
  context.clearRect(x, y, size, size);
  if (!colour) return;
  context.fillStyle = colour;
  if (code === "w") {
    const dot = Math.max(1, Math.round(side / 3));
    context.fillRect(x + Math.floor((side - dot) / 2), y + Math.floor((side - dot) / 2), dot, dot);
    return;
  }
  context.fillRect(x, y, side, side);
  const edge = Math.max(1, Math.round(side / 6));
  if (code === "r") context.clearRect(x + edge, y + edge, side - 2 * edge, side - 2 * edge);
  if (code === "f" && side >= 6) context.clearRect(x, y + (side >> 1), side, edge);
}

function tellCell(event) {
  if (!map) return;
  const { size, columns } = map.layout;
  const column = Math.floor(event.offsetX / size);
  const index = Math.floor(event.offsetY / size) * columns + column;
  const code = column < columns ? map.codes[index] : undefined;
  const first = map.first + index * map.cell;
  const last = Math.min(first + map.cell - 1, map.first + map.count - 1);
  one("run-at").textContent = !code ? "" : map.cell > 1 ? `tasks ${first} to ${last}: ${KINDS[code][0]}` : `task ${first}: ${KINDS[code][0]}`;
}

// Asking

async function lookAtRuns() {
  const found = [];
  let after = null;
  for (let page = 0; page < pages; page += 1) {
    const part = await get(`/v1/runs?limit=${LIST}${after ? `&after=${after}` : ""}`);
    found.push(...part.runs);
    problems = part.problems;
    after = part.next;
    if (!after) break;
  }
  more = Boolean(after);
  runs.clear();
  for (const one of found) runs.set(one.id, one);
  redraw("runs");
}

async function lookAtRun() {
  const id = chosen;
  if (!id) return;
  const found = await get(`/v1/runs/${id}`);
  if (id !== chosen) return;
  const grown = JSON.stringify(found.counts) !== JSON.stringify(run?.counts) || found.changed !== run?.changed;
  const moreHaveFailed = !run || found.counts?.failed !== run.counts?.failed;
  run = found;
  if (found.counts && (grown || !map)) await lookAtMap(id);
  if (found.counts && moreHaveFailed) await lookAtFailed(id);
  redraw("run");
}

async function lookAtMap(id) {
  one("run").hidden = one("run-parts").hidden = false; // it has a width then
  const wanted = layout(all(run));
  const found = await get(`/v1/runs/${id}/map?cells=${wanted.most}`);
  if (id === chosen) map = { ...found, layout: layout(Math.ceil(found.count / found.cell)), codes: unpack(found.states) };
}

async function lookAtFailed(id) {
  const found = await get(`/v1/runs/${id}/failed?limit=${Math.min(1000, Math.max(FAILED, failed.length))}`);
  if (id !== chosen) return;
  failed = found.failed;
  moreFailed = found.next;
}

async function loadMoreFailed() {
  const id = chosen;
  const found = await get(`/v1/runs/${id}/failed?limit=${FAILED}&after=${moreFailed}`);
  if (id !== chosen) return;
  failed = [...failed, ...found.failed];
  moreFailed = found.next;
  redrawNow("run");
}

function choose(id) {
  chosen = id;
  run = map = null;
  failed = [];
  moreFailed = null;
  one("run-at").textContent = one("run-answer").textContent = "";
  delete one("run-weight").dataset.changed;
  redrawNow("runs");
  trying(async () => {
    await lookAtRun();
    redrawNow("run");
    one("run").scrollIntoView({ block: "nearest" });
    one("run-title").focus();
  });
}

let looking = false;
async function look() {
  if (document.hidden || looking) return;
  looking = true;
  try {
    await lookAtRuns();
    if (chosen && !runs.has(chosen) && !more) {
      chosen = run = null;
      redraw("run");
    }
    await lookAtRun();
  } catch { /* the line at the top says it, when there is no answer */ }
  looking = false;
}

async function lookAgain() {
  await look();
  setTimeout(lookAgain, untilNextLook());
}

// Steering

async function steer(action, value, words) {
  const told = one("run-answer");
  try {
    const answer = await (await post(`/v1/runs/${chosen}/${action}`, value)).json();
    run = { ...run, ...answer };
    told.textContent = words;
    drawRun(); // at once: the focus goes to a button that it shows
  } catch (error) {
    told.textContent = error instanceof Refused ? error.message : "the server does not answer";
  }
}

function begin() {
  Object.assign(drawers, { runs: drawRuns, run: drawRun });
  for (const code of ["d", "f", "r", "w"]) {
    const item = make("li");
    item.append(make("span", "", `swatch ${KINDS[code][0]}`), make("span"));
    one("run-legend").append(item);
  }
  one("run-filter").addEventListener("input", () => redrawNow("runs"));
  one("more-runs").addEventListener("click", () => { pages += 1; trying(lookAtRuns); });
  one("more-failed").addEventListener("click", () => trying(loadMoreFailed));
  one("run-pause").addEventListener("click", async () => { await steer("pause", {}, "paused: no further task begins"); one("run-continue").focus(); });
  one("run-continue").addEventListener("click", async () => { await steer("continue", {}, "tasks begin again"); one("run-pause").focus(); });
  one("run-weight").addEventListener("input", () => { one("run-weight").dataset.changed = "yes"; });
  one("run-control").addEventListener("submit", async (event) => {
    event.preventDefault();
    const weight = one("run-weight").valueAsNumber;
    delete one("run-weight").dataset.changed;
    await steer("weight", { weight }, `the weight is ${weight}`);
  });
  one("run-map").addEventListener("pointermove", tellCell);
  one("run-map").addEventListener("pointerleave", () => { one("run-at").textContent = ""; });
  matchMedia("(prefers-color-scheme: dark)").addEventListener("change", () => redrawNow("run"));
  addEventListener("resize", () => { if (run?.counts) trying(async () => { await lookAtMap(chosen); redraw("run"); }); });
  document.addEventListener("visibilitychange", look);
  lookAgain();
}

export { begin as beginRuns };
