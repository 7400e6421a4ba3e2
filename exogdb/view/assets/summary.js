/* ---- counts and latencies of the shown calls, as `exo-syscall summary` has them ---- */
const GROUPS = {
  name: { title: "System call", key: nameOf, label: (key) => key, word: (key) => key },
  process: { title: "Process", key: (i) => calls.process[i], label: processName, word: (key) => `P${key}` },
  cpu: { title: "CPU", key: (i) => calls.cpu[i], label: cpuName, word: (key) => (key === null ? null : `cpu${key}`) },
};
const COLUMNS = [
  ["Calls", (entry) => entry.count, count], ["Share", (entry) => entry.count, null], ["Errors", (entry) => entry.errors, count],
  ["Open", (entry) => entry.unfinished, count], ["Total", (entry) => entry.time, latencyWords], ["Min", (entry) => entry.minimum, latencyWords],
  ["Median", (entry) => entry.median, latencyWords], ["p99", (entry) => entry.p99, latencyWords], ["Max", (entry) => entry.maximum, latencyWords],
];
const order = { column: 0, descending: true };

/* The smallest value that at least `percent` per cent of the values do not exceed. */
const percentile = (sorted, percent) => sorted[Math.max(1, Math.ceil((percent * sorted.length) / 100)) - 1];

function summarise(rows, key) {
  const entries = new Map();
  for (const i of rows) {
    if (!isSeenWhole(i)) continue;
    const name = key(i);
    const entry = entries.get(name) || entries.set(name, { name, count: 0, errors: 0, unfinished: 0, latencies: [] }).get(name);
    entry.count += 1;
    entry.errors += calls.failed[i];
    entry.unfinished += isUnfinished(i) ? 1 : 0;
    if (tookOf(i) !== null) entry.latencies.push(tookOf(i));
  }
  for (const entry of entries.values()) addLatency(entry);
  return [...entries.values()];
}

function addLatency(entry) {
  const sorted = Float64Array.from(entry.latencies).sort();
  entry.buckets = new Map();
  for (const ns of sorted) {
    const bucket = ns <= 0 ? -1 : Math.floor(Math.log2(ns));
    entry.buckets.set(bucket, (entry.buckets.get(bucket) || 0) + 1);
  }
  if (!sorted.length) return;
  Object.assign(entry, {
    time: sorted.reduce((sum, ns) => sum + ns, 0), minimum: sorted[0], maximum: sorted[sorted.length - 1],
    median: percentile(sorted, 50), p99: percentile(sorted, 99),
  });
}

function drawSummary() {
  const group = GROUPS[state.group], entries = summarise(shown, group.key);
  const all = entries.reduce((sum, entry) => sum + entry.count, 0);
  const [, value] = COLUMNS[order.column], sign = order.descending ? -1 : 1;
  entries.sort((a, b) => sign * ((value(a) ?? -1) - (value(b) ?? -1)) || b.count - a.count);
  const scale = scaleOf(entries), isCoarse = entries.some((entry) => entry.buckets.has(-1));
  drawSummaryHead(group, scale);
  byId("summary").tBodies[0].replaceChildren(...entries.map((entry) => summaryRow(entry, all, group, scale)));
  const unseen = shown.length - all;
  byId("coarse").textContent = [
    all ? "" : "No call was entered and shown here.",
    isCoarse ? "short: entry and return were read together, so that this clock cannot tell how long the call took." : "",
    unseen ? `Not counted: ${count(unseen)} return${unseen === 1 ? "" : "s"} of calls entered before the trace, or of forks' children.` : "",
  ].filter(Boolean).join(" ");
}

function drawSummaryHead(group, scale) {
  const heads = COLUMNS.map(([title], k) => make("th", { class: "number", scope: "col", "aria-sort": sortWord(order, k) },
    make("button", { type: "button", click: () => sortBy(order, k, drawSummary) }, title)));
  const words = scale.bars ? [scale.hasShort ? "short" : duration(2 ** scale.least), duration(2 ** scale.most)] : ["", ""];
  const axis = make("span", { class: "scale" }, make("span", {}, words[0]), make("span", {}, "latency, powers of two"), make("span", {}, words[1]));
  byId("summary").tHead.replaceChildren(make("tr", {}, make("th", { scope: "col" }, group.title), ...heads, make("th", { scope: "col" }, axis)));
}

const sortWord = (sorting, k) => (sorting.column !== k ? null : sorting.descending ? "descending" : "ascending");

function sortBy(sorting, k, draw) {
  sorting.descending = sorting.column === k ? !sorting.descending : true;
  sorting.column = k;
  draw();
}

function summaryRow(entry, all, group, scale) {
  const word = group.word(entry.name), swatch = make("span", { class: "swatch" });
  swatch.style.background = state.group === "name" ? colours.get(entry.name) : "none";
  const name = word === null ? group.label(entry.name) : make("button", { type: "button", title: "Show only these", click: () => toggleWord(word) }, group.label(entry.name));
  const numbers = COLUMNS.map(([title, value, words]) => {
    const text = words ? words(value(entry)) : `${((100 * entry.count) / all).toFixed(1)} %`;
    return make("td", { class: title === "Errors" && entry.errors ? "number failed" : "number" }, text);
  });
  return make("tr", { "data-name": entry.name }, make("th", { scope: "row" }, ...(state.group === "name" ? [swatch] : []), name), ...numbers, make("td", {}, histogram(entry, scale)));
}

/* ---- histograms, all on one scale ---- */
function scaleOf(entries) {
  const keys = entries.flatMap((entry) => [...entry.buckets.keys()]), measured = keys.filter((key) => key >= 0);
  const hasShort = keys.includes(-1), least = Math.min(...measured), most = Math.max(...measured);
  return { hasShort, least, most, bars: measured.length ? most - least + 1 : 0 };
}

function histogram(entry, scale) {
  const width = 240, height = 30, shift = scale.hasShort ? 1.5 : 0, most = Math.max(1, ...entry.buckets.values());
  if (!entry.buckets.size) return "–";
  const room = width / (scale.bars + shift), bars = [...entry.buckets].sort(([a], [b]) => a - b);
  const words = bars.map(([bucket, n]) => `${bucket < 0 ? "short" : `from ${duration(2 ** bucket)}`}: ${count(n)}`);
  const svg = make("svg", { class: "histogram", width, height, viewBox: `0 0 ${width} ${height}`, preserveAspectRatio: "none", role: "img", "aria-label": words.join(", ") });
  svg.append(make("line", { class: "base", x1: 0, x2: width, y1: height - 0.5, y2: height - 0.5 }));
  bars.forEach(([bucket, n], k) => {
    const tall = Math.max(1.5, (n / most) * (height - 2)), x = bucket < 0 ? 0 : (bucket - scale.least + shift) * room;
    const bar = make("rect", { class: bucket < 0 ? "bar short" : "bar", x, y: height - tall, width: Math.max(1, room - 1), height: tall });
    bar.append(make("title", {}, words[k]));
    svg.append(bar);
  });
  return svg;
}
