"use strict";
/* The recorded calls in columns: everywhere below, `i` is a call. Times are nanoseconds since the first moment. */
const data = JSON.parse(document.getElementById("data").textContent);
const calls = Object.fromEntries(data.columns.map((name, k) => [name, data.calls[k]]));
const total = calls.seq.length;

/* What a guest calls itself may hold characters that cannot be seen, or that turn the line around. */
const reveal = (text) => text.replace(/[\p{Cc}\p{Cf}\p{Cs}\p{Zl}\p{Zp}]/gu, (c) => `\\u{${c.codePointAt(0).toString(16)}}`);
const texts = data.texts.map(reveal);
const names = data.names.map(([name]) => reveal(name));

const nameOf = (i) => names[calls.name[i]];
const numberOf = (i) => data.names[calls.name[i]][1];
const stateOf = (i) => texts[calls.state[i]];
const tookOf = (i) => (calls.entry[i] === null || calls.exit[i] === null ? null : calls.exit[i] - calls.entry[i]);
const isUnfinished = (i) => stateOf(i) === "in progress";
const isSeenWhole = (i) => !["entered before the trace", "started by fork"].includes(stateOf(i));

/* The end of the trace, and from when to when each call is known to have been in progress. */
const lasted = Math.max(latest(calls.entry), latest(calls.exit));
const span = Math.max(1, lasted); // of the timeline, which needs a length
const begin = Float64Array.from({ length: total }, (_, i) => calls.entry[i] ?? (stateOf(i) === "started by fork" ? calls.exit[i] : 0));
const end = Float64Array.from({ length: total }, (_, i) => calls.exit[i] ?? (isUnfinished(i) ? span : begin[i]));

function latest(times) {
  return times.reduce((most, time) => Math.max(most, time ?? 0), 0);
}

/* A process keeps its number through exec: its last program names it. */
const lastProgram = new Map();
for (let i = 0; i < total; i++) if (texts[calls.program[i]]) lastProgram.set(calls.process[i], texts[calls.program[i]]);
const processName = (process) => `P${process} ${lastProgram.get(process) || ""}`.trim();
const callerName = (i) => `P${calls.process[i]} ${texts[calls.program[i]]}`.trim();

/* Whose child a process is, as its last call knows it best. */
const parents = new Map();
for (let i = 0; i < total; i++) if (calls.parent[i] !== null) parents.set(calls.process[i], i);

function parentWords(process) {
  const i = parents.get(process);
  if (i === undefined) return "unknown";
  return processName(calls.parent[i]) + (calls.parent_guess[i] ? " (guess: it was not seen starting)" : "");
}

const cpuName = (cpu) => `CPU ${cpu ?? "?"}`;

/* ---- words ---- */
const count = (n) => n.toLocaleString("en");

function duration(ns) {
  if (ns === null || ns === undefined) return "–";
  if (data.header.unit === "instructions") return `${count(Math.round(ns))} instr.`;
  for (const [unit, size] of [["s", 1e9], ["ms", 1e6], ["µs", 1e3]]) if (ns >= size) return `${(ns / size).toPrecision(3)} ${unit}`;
  return `${ns} ns`;
}

/* 0 is no measurement: the clock was too coarse. */
const latencyWords = (ns) => (ns === 0 ? "short" : duration(ns));

function tookWords(i) {
  if (isUnfinished(i) && calls.entry[i] < lasted && calls.entry[i] !== null) return `> ${duration(lasted - calls.entry[i])}`;
  return latencyWords(tookOf(i));
}

function headWords(i) {
  if (stateOf(i) === "entered before the trace") return "(a call entered before the trace)";
  if (stateOf(i) === "started by fork") return `(${nameOf(i)} in the new process)`;
  return `${nameOf(i)}(${texts[calls.args[i]]})`;
}

function resultWords(i) {
  if (stateOf(i) === "never returned") return "?";
  if (isUnfinished(i)) return "(unfinished)";
  return texts[calls.result[i]] + (calls.guess[i] ? " (guess: another call in progress fits as well)" : "");
}

const lineOf = (i) => `${headWords(i)} = ${resultWords(i)}`;

/* ---- colours: the most frequent calls have the ones that differ most; red is for errors alone ---- */
const PALETTE = ["#2f6db5", "#d9730d", "#2a8c57", "#8e5bb5", "#12889a", "#8a8500", "#c2569a", "#9a6240", "#5f7388", "#5d9b00"];
const colours = makeColours();

function makeColours() {
  const uses = new Map();
  for (const name of calls.name) uses.set(names[name], (uses.get(names[name]) || 0) + 1);
  const ranked = [...uses.keys()].sort((a, b) => uses.get(b) - uses.get(a));
  return new Map(ranked.map((name, rank) => [name, PALETTE[rank] || `hsl(${(rank * 137.5) % 300 + 30} 45% 45%)`]));
}

const colourOfName = names.map((name) => colours.get(name));
const colourOf = (i) => colourOfName[calls.name[i]];
