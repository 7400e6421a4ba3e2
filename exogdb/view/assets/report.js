"use strict";
const data = JSON.parse(document.getElementById("data").textContent);
const column = Object.fromEntries(data.columns.map((name, i) => [name, data.calls[i]]));
const total = column.seq.length;
const byId = (id) => document.getElementById(id);
const PAGE = 200, ROW = 22, GUTTER = 110, AXIS = 20;

function make(tag, attributes, ...children) {
  const isSvg = ["svg", "rect", "text", "path", "g", "title"].includes(tag);
  const element = isSvg ? document.createElementNS("http://www.w3.org/2000/svg", tag) : document.createElement(tag);
  for (const [name, value] of Object.entries(attributes || {})) element.setAttribute(name, value);
  element.append(...children.map(String).map((text, i) => (children[i] instanceof Node ? children[i] : text)));
  return element;
}

function duration(ns) {
  if (ns === null || ns === undefined) return "–";
  for (const [unit, size] of [["s", 1e9], ["ms", 1e6], ["µs", 1e3]]) if (ns >= size) return `${(ns / size).toPrecision(3)} ${unit}`;
  return `${ns} ns`;
}

const hue = (i) => `hsl(${(i * 137.5) % 360} 60% 52%)`;
const nameOf = (i) => data.names[column.name[i]];
const took = (ns) => (ns === 0 ? "short" : duration(ns));
const argsOf = (i) => data.texts[column.args[i]];
const stateOf = (i) => data.texts[column.state[i]];
const resultOf = (i) => (stateOf(i) === "never returned" ? "?" : stateOf(i) === "in progress" ? "(unfinished)" : data.texts[column.result[i]]);
const processName = (p) => (data.programs[p] ? `P${p} ${data.programs[p]}` : `P${p}`);
const beginOf = (i) => {
  if (stateOf(i) === "entered before the trace") return "(a call entered before the trace)";
  if (stateOf(i) === "started by fork") return `(${nameOf(i)} in the new process)`;
  return `${nameOf(i)}(${argsOf(i)})`;
};
const lineOf = (i) => `${beginOf(i)} = ${resultOf(i)}`;

/* ---- filter: every word must match; the state lives in the address, so that a view can be sent on ---- */
const state = { filter: "", rows: "cpu", page: 0, from: 0, to: 1, found: -1 };
let shown = [];

function matcher(word) {
  const negated = word.startsWith("!");
  const text = (negated ? word.slice(1) : word).toLowerCase();
  const process = /^p(\d+)$/.exec(text), cpu = /^cpu(\d+)$/.exec(text);
  let test = (i) => lineOf(i).toLowerCase().includes(text);
  if (process) test = (i) => column.process[i] === Number(process[1]);
  else if (cpu) test = (i) => column.cpu[i] === Number(cpu[1]);
  else if (text === "error") test = (i) => column.failed[i] === 1;
  else if (data.names.includes(text)) test = (i) => nameOf(i) === text;
  return negated ? (i) => !test(i) : test;
}

function applyFilter() {
  const tests = state.filter.split(/[\s,]+/).filter((word) => word && word !== "!").map(matcher);
  shown = [];
  for (let i = 0; i < total; i++) if (tests.every((test) => test(i))) shown.push(i);
  state.page = 0;
  byId("matches").textContent = `${shown.length.toLocaleString("en")} of ${total.toLocaleString("en")} calls`;
  drawTimeline();
  drawCalls();
}

function setFilter(text) {
  state.filter = text;
  byId("filter").value = text;
  history.replaceState(null, "", text ? `#filter=${encodeURIComponent(text)}` : "#");
  applyFilter();
}

/* ---- head ---- */
function drawHead() {
  const { header, end, complete } = data;
  document.title = byId("title").textContent = `System calls of ${header.kernel}`;
  const cpus = `${header.cpus} CPU${header.cpus === 1 ? "" : "s"}`;
  byId("facts").textContent = `${total.toLocaleString("en")} calls · ${cpus} · ${header.engine} · times: ${header.clock}` + (header.started ? ` · ${header.started}` : "");
  const warnings = complete ? [...(end.problems || [])] : ["This trace was cut off: its last line is missing."];
  if (complete && end.lost) warnings.push(`${end.lost} records were lost.`);
  byId("warnings").textContent = warnings.join(" ");
}

/* ---- timeline ---- */
let span = 1, lanes = [], hitboxes = [];

function prepareTimeline() {
  for (let i = 0; i < total; i++) span = Math.max(span, column.exit[i] || 0, column.entry[i] || 0);
  state.to = span;
}

function drawTimeline() {
  const canvas = byId("timeline"), ratio = window.devicePixelRatio || 1;
  const key = column[state.rows];
  lanes = [...new Set(key)].sort((a, b) => a - b);
  const laneOf = new Map(lanes.map((lane, i) => [lane, i]));
  const width = canvas.clientWidth, height = lanes.length * ROW + AXIS;
  canvas.style.height = `${height}px`;
  canvas.width = width * ratio;
  canvas.height = height * ratio;
  const pen = canvas.getContext("2d"), style = getComputedStyle(document.documentElement);
  pen.scale(ratio, ratio);
  pen.font = "12px system-ui, sans-serif";
  const scale = (width - GUTTER) / (state.to - state.from);
  hitboxes = [];
  for (const i of shown) {
    if (column.entry[i] === null) continue;
    const end = column.exit[i] === null ? (stateOf(i) === "in progress" ? state.to : column.entry[i]) : column.exit[i];
    if (end < state.from || column.entry[i] > state.to) continue;
    const left = GUTTER + Math.max(0, (column.entry[i] - state.from) * scale);
    const size = Math.max(1, GUTTER + (end - state.from) * scale - left);
    const top = laneOf.get(key[i]) * ROW + 3;
    pen.fillStyle = hue(column.name[i]);
    pen.globalAlpha = column.exit[i] === null ? 0.35 : 0.9;
    pen.fillRect(left, top, size, ROW - 6);
    hitboxes.push([left, top, size, i]);
  }
  pen.globalAlpha = 1;
  pen.fillStyle = style.getPropertyValue("--ground");
  pen.fillRect(0, 0, GUTTER - 1, height);
  pen.fillStyle = style.getPropertyValue("--ink");
  lanes.forEach((lane, row) => pen.fillText(state.rows === "cpu" ? `CPU ${lane ?? "?"}` : processName(lane), 8, row * ROW + 15));
  pen.fillStyle = style.getPropertyValue("--faint");
  for (let tick = 0; tick <= 6; tick++) {
    const x = GUTTER + ((width - GUTTER) * tick) / 6;
    pen.textAlign = tick === 0 ? "left" : tick === 6 ? "right" : "center";
    pen.fillText(duration(Math.round(state.from + ((state.to - state.from) * tick) / 6)), x, height - 5);
  }
  pen.textAlign = "left";
}

function hit(event) {
  const { offsetX: x, offsetY: y } = event;
  for (let k = hitboxes.length - 1; k >= 0; k--) {
    const [left, top, size, i] = hitboxes[k];
    if (x >= left - 1 && x <= left + size + 1 && y >= top && y <= top + ROW - 6) return i;
  }
  return -1;
}

function watchTimeline() {
  const canvas = byId("timeline");
  let drag = null;
  canvas.addEventListener("wheel", (event) => {
    event.preventDefault();
    const at = state.from + ((event.offsetX - GUTTER) / (canvas.clientWidth - GUTTER)) * (state.to - state.from);
    const factor = event.deltaY > 0 ? 1.25 : 0.8;
    state.from = Math.max(0, at - (at - state.from) * factor);
    state.to = Math.min(span, at + (state.to - at) * factor);
    if (state.to - state.from < 100) state.to = state.from + 100;
    drawTimeline();
  }, { passive: false });
  canvas.addEventListener("mousedown", (event) => { drag = { x: event.offsetX, from: state.from, to: state.to, moved: false }; });
  window.addEventListener("mouseup", () => { drag = null; });
  canvas.addEventListener("mousemove", (event) => {
    if (drag) {
      const shift = ((drag.x - event.offsetX) / (canvas.clientWidth - GUTTER)) * (drag.to - drag.from);
      const bounded = Math.min(Math.max(shift, -drag.from), span - drag.to);
      drag.moved ||= Math.abs(drag.x - event.offsetX) > 3;
      [state.from, state.to] = [drag.from + bounded, drag.to + bounded];
      drawTimeline();
      return;
    }
    const i = hit(event);
    byId("hover").textContent = i < 0 ? " " : `#${column.seq[i]} CPU ${column.cpu[i] ?? "?"} ${processName(column.process[i])}  ${lineOf(i)}  ${took(column.exit[i] === null ? null : column.exit[i] - column.entry[i])}`;
  });
  canvas.addEventListener("click", (event) => {
    const i = hit(event);
    if (i < 0) return;
    state.found = i;
    state.page = Math.floor(shown.indexOf(i) / PAGE);
    drawCalls();
    document.querySelector("tr.found").scrollIntoView({ block: "center" });
  });
  for (const radio of document.querySelectorAll("input[name=rows]")) radio.addEventListener("change", () => { state.rows = radio.value; drawTimeline(); });
  window.addEventListener("resize", drawTimeline);
}

/* ---- summary with histograms ---- */
function histogram(buckets) {
  const width = 220, height = 34, most = Math.max(...buckets.map((bucket) => bucket.count));
  const svg = make("svg", { width, height, role: "img" }), step = Math.min(18, width / buckets.length);
  buckets.forEach((bucket, i) => {
    const tall = bucket.count ? Math.max(1, (bucket.count / most) * (height - 4)) : 0;
    const bar = make("rect", { class: "bar", x: i * step, y: height - tall, width: step - 1, height: tall });
    bar.append(make("title", {}, `${bucket.from_ns ? "from " : ""}${took(bucket.from_ns)}: ${bucket.count.toLocaleString("en")}`));
    svg.append(bar);
  });
  return svg;
}

function drawSummary() {
  const isCoarse = data.summary.syscalls.some((entry) => entry.histogram.some((bucket) => bucket.from_ns === 0));
  if (isCoarse) byId("coarse").textContent = "short: entry and return were read together, so that this clock cannot tell how long the call took.";
  const heads = ["System call", "Calls", "Share", "Errors", "Open", "Min", "Median", "p99", "Max", "Latency (powers of two)"];
  byId("summary").tHead.append(make("tr", {}, ...heads.map((text, i) => make("th", i && i < 9 ? { class: "number" } : {}, text))));
  for (const entry of data.summary.syscalls) {
    const latency = entry.latency_ns || {};
    const numbers = [entry.count.toLocaleString("en"), `${(entry.share * 100).toFixed(1)} %`, entry.errors.toLocaleString("en"), entry.unfinished, took(latency.min), took(latency.median), took(latency.p99), took(latency.max)];
    const swatch = make("span", { class: "swatch" });
    swatch.style.background = hue(data.names.indexOf(entry.name));
    const row = make("tr", { "data-name": entry.name }, make("td", {}, swatch, entry.name), ...numbers.map((text, i) => make("td", { class: i === 2 && entry.errors ? "number failed" : "number" }, text)), make("td", {}, entry.histogram.length ? histogram(entry.histogram) : "–"));
    row.addEventListener("click", () => setFilter(entry.name));
    byId("summary").tBodies[0].append(row);
  }
}

/* ---- who talks to whom: senders, channels, receivers ---- */
function drawConversations() {
  const all = data.conversations, host = byId("conversations");
  if (!all.length) { host.textContent = "No message was sent or received over IPC in this trace."; return; }
  const unique = (values) => [...new Set(values)].sort((a, b) => a - b);
  const sets = [unique(all.filter((c) => c.is_send).map((c) => c.process)), unique(all.map((c) => c.channel)), unique(all.filter((c) => !c.is_send).map((c) => c.process))];
  const height = Math.max(...sets.map((set) => set.length)) * 44 + 30, xs = [20, 360, 700], most = Math.max(...all.map((c) => c.messages));
  const svg = make("svg", { width: 860, height, role: "img" });
  const y = (set, value) => 34 + sets[set].indexOf(value) * 44;
  for (const each of all) {
    const [a, b] = each.is_send ? [0, 1] : [1, 2];
    const from = y(a, each.is_send ? each.process : each.channel) + 14, to = y(b, each.is_send ? each.channel : each.process) + 14;
    const [x1, x2] = [xs[a] + 120, xs[b]], mid = (x1 + x2) / 2;
    svg.append(make("path", { class: "edge", d: `M${x1},${from} C${mid},${from} ${mid},${to} ${x2},${to}`, "stroke-width": 1 + (each.messages / most) * 7 }));
    svg.append(make("text", { x: each.is_send ? x1 + 8 : x2 - 8, y: (each.is_send ? from : to) - 6, class: "faint", "text-anchor": each.is_send ? "start" : "end" }, each.messages.toLocaleString("en")));
  }
  ["sends", "channel", "receives"].forEach((title, set) => {
    svg.append(make("text", { x: xs[set], y: 18, class: "faint" }, title));
    for (const value of sets[set]) {
      svg.append(make("rect", { class: "box", x: xs[set], y: y(set, value), width: 120, height: 28, rx: 4 }));
      svg.append(make("text", { x: xs[set] + 12, y: y(set, value) + 19 }, set === 1 ? `channel ${value}` : processName(value)));
    }
  });
  host.append(svg);
}

/* ---- every call ---- */
function drawCalls() {
  const table = byId("calls"), pages = Math.max(1, Math.ceil(shown.length / PAGE));
  if (!table.tHead.rows.length) table.tHead.append(make("tr", {}, ...["#", "CPU", "Process", "Entered", "Took", "Call"].map((text, i) => make("th", i < 5 ? { class: "number" } : {}, text))));
  byId("page").textContent = `page ${state.page + 1} of ${pages}`;
  const rows = shown.slice(state.page * PAGE, (state.page + 1) * PAGE).map((i) => {
    const length = column.exit[i] === null || column.entry[i] === null ? null : column.exit[i] - column.entry[i];
    const cells = [column.seq[i] || "–", column.cpu[i] ?? "?", processName(column.process[i]), duration(column.entry[i]), took(length)];
    const classes = [column.failed[i] ? "failed" : "", i === state.found ? "found" : ""].join(" ").trim();
    return make("tr", classes ? { class: classes } : {}, ...cells.map((text) => make("td", { class: "number" }, text)), make("td", { class: "text" }, lineOf(i)));
  });
  table.tBodies[0].replaceChildren(...rows);
}

function turn(by) {
  const pages = Math.ceil(shown.length / PAGE);
  state.page = Math.min(Math.max(0, state.page + by), Math.max(0, pages - 1));
  drawCalls();
}

drawHead();
prepareTimeline();
drawSummary();
drawConversations();
watchTimeline();
byId("filter").addEventListener("input", (event) => setFilter(event.target.value));
byId("clear").addEventListener("click", () => setFilter(""));
byId("previous").addEventListener("click", () => turn(-1));
byId("next").addEventListener("click", () => turn(1));
const fromAddress = () => setFilter(decodeURIComponent((/filter=([^&]*)/.exec(location.hash) || ["", ""])[1]));
window.addEventListener("hashchange", fromAddress);
fromAddress();
document.documentElement.dataset.ready = "yes";
