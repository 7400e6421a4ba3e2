/* ---- what the parts of the page have in common ---- */
const byId = (id) => document.getElementById(id);
const SVG = new Set(["svg", "rect", "path", "line", "title"]);

/* An element with attributes and children; a function among the attributes is what a click does. */
function make(tag, attributes = {}, ...children) {
  const element = SVG.has(tag) ? document.createElementNS("http://www.w3.org/2000/svg", tag) : document.createElement(tag);
  for (const [name, value] of Object.entries(attributes)) {
    if (typeof value === "function") element.addEventListener("click", value);
    else if (value !== null) element.setAttribute(name, value);
  }
  element.append(...children);
  return element;
}

const cssColour = (name) => getComputedStyle(document.documentElement).getPropertyValue(name);

/* A pen for a canvas of `height` pixels, whatever the screen's pixels are. */
function penFor(canvas, height) {
  const ratio = window.devicePixelRatio || 1, width = canvas.clientWidth;
  canvas.style.height = `${height}px`;
  canvas.width = Math.round(width * ratio);
  canvas.height = Math.round(height * ratio);
  const pen = canvas.getContext("2d");
  pen.scale(ratio, ratio);
  pen.font = "12px system-ui, sans-serif";
  return pen;
}

/* Redraw once for each frame, however often it was asked for. */
const pending = new Set();
function soon(draw) {
  if (!pending.size) requestAnimationFrame(() => { const all = [...pending]; pending.clear(); all.forEach((each) => each()); });
  pending.add(draw);
}

function definitions(pairs) {
  return pairs.map(([term, text]) => make("div", {}, make("dt", {}, term), make("dd", {}, text)));
}

function drawHead() {
  const { header, end } = data;
  document.title = byId("title").textContent = `System calls of ${reveal(header.kernel)}`;
  byId("facts").append(...definitions([
    ["calls", count(total)], ["CPUs", header.cpus], ["over", duration(lasted || null)], ["by", header.engine],
    ["times", header.clock], ["recorded", (header.started || "at an unknown time").replace("T", " ").replace("+00:00", " UTC")],
  ]));
  const warnings = end ? [...(end.problems || [])] : ["This trace was cut off: its last line is missing, and so may be calls."];
  if (end && end.lost) warnings.push(`${count(end.lost)} records were lost.`);
  byId("warnings").append(...warnings.map((text) => make("li", {}, reveal(text))));
}

/* The call that all parts show as the selected one; -1 for none. */
function select(i) {
  state.selected = i;
  viewChanged();
  drawDetails();
  drawCalls();
  soon(drawTimeline);
}

function drawDetails() {
  const i = state.selected;
  if (i < 0) return byId("details").replaceChildren();
  const back = calls.return_cpu[i] !== null && calls.return_cpu[i] !== calls.cpu[i] ? `, returned on ${cpuName(calls.return_cpu[i])}` : "";
  return byId("details").replaceChildren(
    make("code", {}, lineOf(i)),
    make("dl", {}, ...definitions([
      ["call", calls.seq[i] ? `#${calls.seq[i]}` : "not seen from its entry"], ["number", numberOf(i) ?? "unknown"],
      ["by", callerName(i)], ["on", cpuName(calls.cpu[i]) + back], ["entered at", duration(calls.entry[i])],
      ["took", tookWords(i)], ["state", stateOf(i)], ["child of", parentWords(calls.process[i])],
    ])),
    make("button", { type: "button", click: () => zoomTo(i) }, "Zoom to it"), " ",
    make("button", { type: "button", click: () => showInTable(i) }, "Find it in the table"), " ",
    make("button", { type: "button", click: () => select(-1) }, "Close"));
}

function setFilter(text) {
  state.filter = text;
  byId("filter").value = text;
  applyFilter();
}

/* One more word, or without it if it is there. */
function toggleWord(word) {
  const quoted = /[\s,"]/.test(word) ? `"${word.replaceAll('"', "")}"` : word;
  const words = state.filter.match(/!?"[^"]*"?|\S+/g) || [];
  setFilter((words.includes(quoted) ? words.filter((each) => each !== quoted) : [...words, quoted]).join(" "));
}

function applyFilter() {
  findShown();
  viewChanged();
  byId("matches").textContent = `${count(shown.length)} of ${count(total)} calls`;
  prepareLanes();
  drawTimeline();
  drawSummary();
  drawMessages();
  turnTo(0);
}

const viewChanged = () => history.replaceState(null, "", viewToAddress());
