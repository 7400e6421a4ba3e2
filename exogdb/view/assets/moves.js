/* ---- moving in the timeline: with the mouse, with a finger, with keys ---- */
function setWindow(from, to) {
  const length = Math.min(span, Math.max(SHORTEST_WINDOW, to - from));
  state.from = Math.min(Math.max(0, from), span - length);
  state.to = state.from + length;
  viewChanged();
  soon(drawTimeline);
  if (state.windowed) laterApplyFilter();
}

function zoom(factor, at = (state.from + state.to) / 2) {
  setWindow(at - (at - state.from) * factor, at + (state.to - at) * factor);
}

const pan = (part) => setWindow(state.from + part * (state.to - state.from), state.to + part * (state.to - state.from));

function zoomTo(i) {
  const room = Math.max(SHORTEST_WINDOW, (end[i] - begin[i]) * 2);
  setWindow(begin[i] - room / 4, end[i] + room / 4);
}

/* The call under a point, the shortest of several; -1 if there is none within three pixels. */
function callAt(x, y) {
  const row = Math.floor((y - AXIS + byId("lanes").scrollTop) / ROW);
  const lane = lanes.find((each) => row >= each.row && row < each.row + each.rows);
  if (!lane || x < gutter || y < AXIS) return -1;
  const until = state.rows === "cpu" ? heldUntil : end, earliest = toTime(x - 3), latest = toTime(x + 3);
  let best = -1;
  lane.items.forEach((i, k) => {
    if (begin[i] > latest || until[i] < earliest || (lane.rowOf && lane.rowOf[k] !== row - lane.row)) return;
    if (best < 0 || until[i] - begin[i] <= until[best] - begin[best]) best = i;
  });
  return best;
}

function showTip(event) {
  const i = callAt(event.offsetX, event.offsetY), tip = byId("tip");
  tip.hidden = i < 0;
  if (i < 0) return;
  tip.textContent = `${lineOf(i)}\n${callerName(i)} on ${cpuName(calls.cpu[i])}, ${tookWords(i)}`;
  tip.style.left = `${Math.max(4, Math.min(event.clientX + 12, window.innerWidth - tip.offsetWidth - 8))}px`;
  tip.style.top = `${event.clientY + 18}px`;
}

function watchTimeline() {
  const canvas = byId("timeline");
  let drag = null;
  canvas.addEventListener("wheel", (event) => {
    if (!event.ctrlKey && !event.metaKey && !event.shiftKey) return; // the page scrolls
    event.preventDefault();
    if (event.shiftKey) pan(Math.sign(event.deltaY || event.deltaX) * 0.15);
    else zoom(event.deltaY > 0 ? 1.25 : 0.8, toTime(event.offsetX));
  }, { passive: false });
  canvas.addEventListener("pointerdown", (event) => {
    drag = { x: event.offsetX, from: state.from, to: state.to, moved: false };
    canvas.setPointerCapture(event.pointerId);
  });
  canvas.addEventListener("pointermove", (event) => {
    if (!drag) return showTip(event);
    const shift = ((drag.x - event.offsetX) / (width - gutter)) * (drag.to - drag.from);
    drag.moved ||= Math.abs(drag.x - event.offsetX) > 3;
    return drag.moved && setWindow(drag.from + shift, drag.to + shift);
  });
  canvas.addEventListener("pointerup", (event) => {
    if (drag && !drag.moved) select(callAt(event.offsetX, event.offsetY));
    drag = null;
  });
  canvas.addEventListener("pointercancel", () => { drag = null; });
  canvas.addEventListener("pointerleave", () => { byId("tip").hidden = true; });
  canvas.addEventListener("keydown", pressKey);
  byId("lanes").addEventListener("scroll", () => soon(drawTimeline));
  watchOverview();
}

function watchOverview() {
  const canvas = byId("overview");
  const timeAt = (event) => Math.min(1, Math.max(0, (event.offsetX - gutter) / (width - gutter))) * span;
  let start = null;
  canvas.addEventListener("pointerdown", (event) => { start = timeAt(event); canvas.setPointerCapture(event.pointerId); });
  canvas.addEventListener("pointermove", (event) => {
    const end = timeAt(event);
    if (start !== null && Math.abs(end - start) > span / 400) setWindow(Math.min(start, end), Math.max(start, end));
  });
  for (const end of ["pointerup", "pointercancel"]) canvas.addEventListener(end, () => { start = null; });
}

/* The next or previous shown call in the order of entry. */
function step(by) {
  const order = shown.filter((i) => calls.entry[i] !== null).sort((a, b) => calls.entry[a] - calls.entry[b] || calls.seq[a] - calls.seq[b]);
  if (!order.length) return;
  const at = order.indexOf(state.selected), first = order.findIndex((i) => calls.entry[i] >= state.from);
  const i = order[at < 0 ? Math.max(0, first) : Math.min(order.length - 1, Math.max(0, at + by))];
  if (calls.entry[i] < state.from || calls.entry[i] > state.to) setWindow(calls.entry[i] - (state.to - state.from) / 2, calls.entry[i] + (state.to - state.from) / 2);
  select(i);
}

const KEYS = {
  ArrowLeft: () => pan(-0.15), ArrowRight: () => pan(0.15), a: () => pan(-0.15), d: () => pan(0.15),
  "+": () => zoom(0.8), "=": () => zoom(0.8), "-": () => zoom(1.25), w: () => zoom(0.8), s: () => zoom(1.25),
  0: () => setWindow(0, span), n: () => step(1), p: () => step(-1),
  Enter: () => state.selected >= 0 && showInTable(state.selected), Escape: () => select(-1),
};

function pressKey(event) {
  if (event.ctrlKey || event.metaKey || event.altKey || !KEYS[event.key]) return;
  event.preventDefault();
  KEYS[event.key]();
}
