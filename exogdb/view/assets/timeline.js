/* ---- timeline ---- */
const ROW = 20, AXIS = 22, OVERVIEW = 44, SHORTEST_WINDOW = 100;
let width = 0, gutter = 0; // of the canvas, and of the names on its left, when it was drawn last
const toX = (time) => gutter + ((time - state.from) / (state.to - state.from)) * (width - gutter);
const toTime = (x) => state.from + ((x - gutter) / (width - gutter)) * (state.to - state.from);

/* Only what is scrolled into sight is drawn: there may be thousands of processes. */
function drawTimeline() {
  const canvas = byId("timeline"), box = byId("lanes");
  const rows = lanes.reduce((sum, lane) => sum + lane.rows, 0), whole = rows * ROW + AXIS;
  const height = Math.min(whole, Math.max(160, Math.round(window.innerHeight * 0.62)));
  box.style.height = whole > height ? `${height + 2}px` : "auto";
  canvas.style.marginBottom = `${whole - height}px`;
  const pen = penFor(canvas, height), scrolled = box.scrollTop;
  width = canvas.clientWidth;
  gutter = width < 600 ? 76 : 132;
  drawGrid(pen, height);
  for (const lane of lanes) {
    const top = AXIS + lane.row * ROW - scrolled;
    if (top + lane.rows * ROW >= AXIS && top < height) drawLane(pen, lane, top);
  }
  drawAxis(pen);
  drawOverview();
  byId("range").textContent = !lasted ? "" : `${duration(state.to - state.from)} from ${duration(state.from)} on`;
}

function drawLane(pen, lane, top) {
  pen.fillStyle = cssColour("--lane");
  pen.fillRect(gutter, top + 1, width - gutter, lane.rows * ROW - 2);
  pen.save();
  pen.beginPath();
  pen.rect(gutter, top, width - gutter, lane.rows * ROW);
  pen.clip();
  if (state.rows === "process") drawWaiting(pen, lane, top);
  drawHeld(pen, lane, top);
  drawErrors(pen, lane, top);
  drawSelected(pen, lane, top);
  pen.restore();
  pen.fillStyle = cssColour("--ink");
  pen.fillText(fitted(pen, laneName(lane.key), gutter - 12), 8, top + 14);
}

/* Calls `draw(i, left, size, top)` for what is in sight until `until[i]`. The first call in a pixel stays visible. */
function forEachInSight(lane, top, until, draw) {
  const taken = new Float64Array(lane.rows).fill(-1), { items, rowOf } = lane;
  const scale = (width - gutter) / (state.to - state.from);
  for (let k = 0; k < items.length; k++) {
    const i = items[k];
    if (until[i] < state.from || begin[i] > state.to) continue;
    const left = Math.max(gutter, gutter + (begin[i] - state.from) * scale);
    const size = Math.min(width, gutter + (until[i] - state.from) * scale) - left;
    const row = rowOf ? rowOf[k] : 0, pixel = Math.floor(left);
    if (size < 1 && pixel === taken[row]) continue;
    taken[row] = pixel;
    draw(i, left, Math.max(1, size), top + row * ROW);
  }
}

function drawHeld(pen, lane, top) {
  forEachInSight(lane, top, heldUntil, (i, left, size, y) => {
    pen.fillStyle = colourOf(i);
    pen.fillRect(left, y + 3, size > 3 ? size - 0.5 : size, ROW - 6);
    if (size > 40) drawLabel(pen, nameOf(i), left + 4, y + 14, size - 8);
  });
}

function drawWaiting(pen, lane, top) {
  forEachInSight(lane, top, end, (i, left, size, y) => {
    pen.fillStyle = colourOf(i);
    pen.fillRect(left, y + ROW / 2 - 2, size, 4);
  });
}

/* Errors are seen at any scale: a red mark under the call, on top of whatever shares its pixel. */
function drawErrors(pen, lane, top) {
  let taken = -1;
  pen.fillStyle = cssColour("--bad");
  for (const i of lane.items) {
    if (!calls.failed[i] || begin[i] > state.to || end[i] < state.from) continue;
    const x = Math.floor(toX(begin[i]));
    if (x !== taken) pen.fillRect(x - 1, top + ROW - 4, 3, 4);
    taken = x;
  }
}

function drawSelected(pen, lane, top) {
  const i = state.selected;
  if (i < 0 || calls[state.rows][i] !== lane.key) return;
  const k = lane.items.indexOf(i), left = Math.max(gutter - 4, toX(begin[i])), right = Math.min(width + 4, toX(end[i]));
  if (k < 0 || right < left) return;
  pen.strokeStyle = cssColour("--ink");
  pen.lineWidth = 2;
  pen.strokeRect(left - 2, top + (lane.rowOf ? lane.rowOf[k] : 0) * ROW + 1, Math.max(2, right - left) + 4, ROW - 2);
}

function drawLabel(pen, text, x, y, room) {
  if (pen.measureText(text).width > room) return;
  pen.fillStyle = "#ffffff";
  pen.fillText(text, x, y);
}

function fitted(pen, text, room) {
  if (pen.measureText(text).width <= room) return text;
  let keep = Math.min(text.length, 40);
  while (keep > 1 && pen.measureText(`${text.slice(0, keep)}…`).width > room) keep--;
  return `${text.slice(0, keep)}…`;
}

/* ---- axis ---- */
function findTicks() {
  const least = ((state.to - state.from) * 90) / Math.max(90, width - gutter);
  const power = 10 ** Math.floor(Math.log10(least));
  const step = Math.max(1, power * [1, 2, 5, 10].find((factor) => power * factor >= least));
  const first = Math.ceil(state.from / step) * step;
  return { step, times: Array.from({ length: Math.floor((state.to - first) / step) + 1 }, (_, k) => first + k * step) };
}

/* With as many decimals as tell a tick from the next. */
function tickLabel(time, step) {
  const [unit, size] = [["s", 1e9], ["ms", 1e6], ["µs", 1e3], ["ns", 1]].find(([, each]) => Math.max(time, step) >= each) || ["ns", 1];
  return `${(time / size).toFixed(Math.max(0, Math.ceil(Math.log10(size / step))))} ${unit}`;
}

function drawGrid(pen, height) {
  pen.fillStyle = cssColour("--line");
  for (const time of findTicks().times) pen.fillRect(Math.round(toX(time)), AXIS - 5, 1, height);
}

function drawAxis(pen) {
  const { step, times } = findTicks();
  pen.fillStyle = cssColour("--ground");
  pen.fillRect(0, 0, width, AXIS - 5);
  pen.fillStyle = cssColour("--faint");
  for (const time of times) {
    const text = tickLabel(time, step), x = toX(time);
    pen.textAlign = x + pen.measureText(text).width / 2 > width ? "right" : "center";
    pen.fillText(text, Math.min(x, width - 2), 14);
  }
  pen.textAlign = "left";
}

/* ---- overview: how many of the shown calls were entered when, over the whole trace, and the part in sight ---- */
function countEntered(buckets) {
  const counts = new Uint32Array(buckets);
  for (const i of shown) if (calls.entry[i] !== null) counts[Math.min(buckets - 1, Math.floor((calls.entry[i] / span) * buckets))]++;
  return counts;
}

function drawRate(pen, most, length) {
  const rate = data.header.unit === "instructions" ? `${count(most)} calls` : `${count(Math.round(most / (length / 1e9)))} calls/s`;
  pen.fillText(fitted(pen, rate, gutter - 12), 8, 18);
  pen.fillText(fitted(pen, `in ${duration(Math.round(length))}`, gutter - 12), 8, 34);
}

function drawOverview() {
  const pen = penFor(byId("overview"), OVERVIEW), counts = countEntered(Math.max(1, Math.floor((width - gutter) / 2)));
  const most = Math.max(1, ...counts), length = span / counts.length;
  pen.fillStyle = cssColour("--accent");
  counts.forEach((n, k) => pen.fillRect(gutter + k * 2, OVERVIEW - (n / most) * (OVERVIEW - 6), 2, (n / most) * (OVERVIEW - 6)));
  const [from, to] = [state.from, state.to].map((time) => gutter + (time / span) * (width - gutter));
  pen.fillStyle = cssColour("--faint");
  if (lasted) drawRate(pen, most, length);
  pen.globalAlpha = 0.35;
  pen.fillRect(gutter, 0, from - gutter, OVERVIEW);
  pen.fillRect(to, 0, width - to, OVERVIEW);
  pen.globalAlpha = 1;
}
