// Rates, load and queue over time, drawn by uPlot.

/* global uPlot */
import { get, make, one } from "./shared.js";

const PLOTS = [
  ["Slots", [["busy", "busy", "#2563a8"], ["all", "slots", "#57606a"]]],
  ["Load of the workers, on average (1: all processors are busy)", [["load", "load", "#a05a00"]]],
  ["Jobs", [["queued", "queued", "#a05a00"], ["running", "jobs", "#2563a8"]]],
  ["Jobs that ended, a minute", [["succeeded", "succeeded", "#2e8b57"], ["other", "other", "#c0392b"]]],
];
const drawn = [];
const DAY = 86400; // seconds; of a day there is a sample each minute

let pastAt = 0;
export async function lookAtHistory() {
  const span = Number(one("span").value);
  if (document.hidden || Date.now() - pastAt < (span === DAY ? 60_000 : 4000)) return;
  pastAt = Date.now();
  try {
    const { samples } = await get(`/page/history?seconds=${span}`);
    drawPlots(samples);
  } catch { /* showStale says it */ }
}

export function lookAgain() {
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

export function fitPlots() {
  for (const plot of drawn) if (plot.width !== plotWidth()) plot.setSize({ width: plotWidth(), height: 170 });
}
export function recolourPlots() {
  for (const plot of drawn) plot.redraw(false, true);
}
