/* ---- filter: every word must be true of a call. The whole view lives in the address, so that it can be sent on ---- */
const state = { filter: "", windowed: false, rows: "cpu", group: "name", from: 0, to: span, selected: -1 };
let shown = [];
const UNITS = { ns: 1, us: 1e3, "µs": 1e3, ms: 1e6, s: 1e9 };
const lowerLines = [];

function lowerLine(i) {
  return (lowerLines[i] ??= `${callerName(i)} ${lineOf(i)}`.toLowerCase());
}

/* The words of a filter: `"..."` holds blanks together, `!` in front is a not, a comma an or. */
function parseFilter(text) {
  return [...text.matchAll(/(!?)(?:"([^"]*)"?|(\S+))/g)].flatMap(([, not, quoted, bare]) => {
    const words = quoted !== undefined ? [quoted] : bare.split(",").filter((word) => word !== "!");
    const tests = words.filter(Boolean).map((word) => (quoted !== undefined ? textTest(word) : wordTest(word)));
    if (!tests.length) return [];
    const any = (i) => tests.some((test) => test(i));
    return [not ? (i) => !any(i) : any];
  });
}

const textTest = (word) => (i) => lowerLine(i).includes(word.toLowerCase());

function wordTest(word) {
  const text = word.toLowerCase();
  const [, process, cpu, sequence] = /^(?:p(\d+)|cpu(\d+)|#(\d+))$/.exec(text) || [];
  const [, sign, amount, unit] = /^([<>])(\d+(?:\.\d+)?)(ns|us|µs|ms|s)$/.exec(text) || [];
  if (process) return (i) => calls.process[i] === Number(process);
  if (cpu) return (i) => calls.cpu[i] === Number(cpu);
  if (sequence) return (i) => calls.seq[i] === Number(sequence);
  if (sign) return durationTest(sign, amount * UNITS[unit]);
  if (text === "error") return (i) => calls.failed[i] === 1;
  if (text === "unfinished") return isUnfinished;
  if (text === "guess") return (i) => calls.guess[i] === 1;
  if (names.includes(word)) return (i) => nameOf(i) === word;
  return textTest(word);
}

/* A call that has not returned has taken at least until the end of the trace. */
function durationTest(sign, limit) {
  const atLeast = (i) => tookOf(i) ?? (isUnfinished(i) && calls.entry[i] !== null ? span - calls.entry[i] : null);
  if (sign === ">") return (i) => atLeast(i) !== null && atLeast(i) > limit;
  return (i) => tookOf(i) !== null && tookOf(i) < limit;
}

function findShown() {
  const tests = parseFilter(state.filter);
  if (state.windowed) tests.push((i) => end[i] >= state.from && begin[i] <= state.to);
  shown = [];
  for (let i = 0; i < total; i++) if (tests.every((test) => test(i))) shown.push(i);
}

/* ---- the address ---- */
function viewToAddress() {
  const words = new URLSearchParams();
  if (state.filter) words.set("filter", state.filter);
  if (state.windowed) words.set("windowed", "1");
  if (state.rows !== "cpu") words.set("rows", state.rows);
  if (state.group !== "name") words.set("group", state.group);
  if (state.from > 0 || state.to < span) words.set("time", `${Math.floor(state.from)}-${Math.ceil(state.to)}`);
  if (state.selected >= 0) words.set("call", calls.seq[state.selected]);
  return `#${words}`;
}

function viewFromAddress(address) {
  const words = new URLSearchParams(address.replace(/^#/, ""));
  const [, from, to] = /^(\d+)-(\d+)$/.exec(words.get("time") || "") || [];
  state.filter = words.get("filter") || "";
  state.windowed = words.has("windowed");
  state.rows = words.get("rows") === "process" ? "process" : "cpu";
  state.group = ["process", "cpu"].includes(words.get("group")) ? words.get("group") : "name";
  [state.from, state.to] = Number(from) < Math.min(Number(to), span) ? [Number(from), Math.min(Number(to), span)] : [0, span];
  state.selected = words.has("call") ? calls.seq.indexOf(Number(words.get("call"))) : -1;
}
