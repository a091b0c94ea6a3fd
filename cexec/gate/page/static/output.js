// The output of one job, live, with the colours of a terminal.
//
// Contract: what a job printed is text, never markup; at most MOST_OUTPUT characters of it are kept.

import { Refused, ask, heard, make, one } from "./shared.js";

const MOST_OUTPUT = 1_000_000; // characters of an output that are shown: the last ones
const MOST_PIECES = 20_000; // of one style each, that are shown of an output

let following = null; // what ends it
export async function showOutput(id) {
  const dialog = one("output");
  one("output-title").textContent = `Output of ${id}`;
  dialog.dataset.job = id;
  dialog.querySelector("input[value=stdout]").checked = true;
  if (!dialog.open) dialog.showModal();
  await followOutput();
}

export function outputClosed() {
  following?.abort();
  // The browser has given the focus back, if the button is still there.
  const id = one("output").dataset.job;
  if (document.activeElement === document.body) (document.querySelector(`#job-rows tr[data-key="${CSS.escape(id)}"] button`) || document.querySelector("#jobs .wide")).focus();
}

export async function followOutput() {
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
      heard();
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
