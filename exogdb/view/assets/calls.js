/* ---- every call, a page at a time ---- */
const PAGE = 200;
const CALL_COLUMNS = [
  ["#", (i) => calls.seq[i], "number"], ["CPU", null, "number spare"], ["Process", null, "who"],
  ["Entered", (i) => calls.entry[i] ?? -1, "number spare"], ["Took", (i) => tookOf(i) ?? (isUnfinished(i) ? Infinity : -1), "number"], ["Call", null, ""],
];
const callOrder = { column: -1, descending: true };
let page = 0, sorted = [];

function turnTo(number) {
  const [, value] = CALL_COLUMNS[callOrder.column] || [], sign = callOrder.descending ? -1 : 1;
  const difference = (a, b) => (value(a) === value(b) ? a - b : sign * (value(a) - value(b)));
  sorted = value ? [...shown].sort(difference) : shown;
  page = Math.min(Math.max(0, number), Math.max(0, Math.ceil(sorted.length / PAGE) - 1));
  drawCalls();
}

function drawCalls() {
  const from = page * PAGE, rows = sorted.slice(from, from + PAGE);
  byId("calls").tHead.replaceChildren(make("tr", {}, ...CALL_COLUMNS.map(callHead)));
  byId("calls").tBodies[0].replaceChildren(...rows.map(callRow));
  byId("page").textContent = rows.length ? `${count(from + 1)} to ${count(from + rows.length)} of ${count(sorted.length)}` : "no calls";
  byId("previous").disabled = page === 0;
  byId("next").disabled = from + PAGE >= sorted.length;
}

function callHead([title, value, kind], k) {
  const sort = () => sortBy(callOrder, k, () => turnTo(0));
  return make("th", { class: kind, scope: "col", "aria-sort": sortWord(callOrder, k) }, value ? make("button", { type: "button", click: sort }, title) : title);
}

function callRow(i) {
  const cells = [calls.seq[i] || "–", calls.cpu[i] ?? "?", callerName(i), duration(calls.entry[i]), tookWords(i)].map((text, k) => {
    const inner = k ? text : make("button", { type: "button", "aria-label": `Select call ${text}` }, text);
    return make("td", { class: CALL_COLUMNS[k][2], title: CALL_COLUMNS[k][2] === "who" ? text : null }, inner);
  });
  const attributes = { "data-call": i, class: calls.failed[i] ? "failed" : null, "aria-selected": i === state.selected ? "true" : null, click: () => select(i) };
  return make("tr", attributes, ...cells, make("td", { class: "text" }, make("span", {}, lineOf(i))));
}

function showInTable(i) {
  if (!sorted.includes(i)) setFilter("");
  if (!sorted.includes(i)) return;
  turnTo(Math.floor(sorted.indexOf(i) / PAGE));
  const row = document.querySelector(`#calls tr[data-call="${i}"]`);
  row.scrollIntoView({ block: "center" });
  row.querySelector("button").focus({ preventScroll: true });
}
