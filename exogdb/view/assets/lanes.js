/* ---- lanes: which call is drawn in which row ---- */
let lanes = [], heldUntil = null;

/*
 * Until when a call's CPU is known to have done nothing else: its return there, or the next thing seen of another
 * call on that CPU. From then on the call waited, or was preempted, or went on elsewhere: a trace cannot tell.
 */
function findHeld() {
  heldUntil = new Float64Array(total);
  const cpus = new Map();
  const at = (cpu) => cpus.get(cpu) || cpus.set(cpu, { entries: [], exits: [] }).get(cpu);
  for (let i = 0; i < total; i++) {
    if (calls.entry[i] !== null) at(calls.cpu[i]).entries.push(i);
    if (calls.exit[i] !== null) at(calls.return_cpu[i]).exits.push(i);
  }
  for (const { entries, exits } of cpus.values()) {
    entries.sort((a, b) => calls.entry[a] - calls.entry[b] || calls.seq[a] - calls.seq[b]);
    exits.sort((a, b) => calls.exit[a] - calls.exit[b]);
    let next = 0;
    entries.forEach((i, k) => {
      while (next < exits.length && calls.exit[exits[next]] <= calls.entry[i]) next++;
      const entered = k + 1 < entries.length ? calls.entry[entries[k + 1]] : span;
      const left = next < exits.length ? calls.exit[exits[next]] : span;
      heldUntil[i] = Math.min(end[i], entered, left);
    });
  }
  for (let i = 0; i < total; i++) if (calls.entry[i] === null) heldUntil[i] = begin[i];
}

/* The shown calls by row, in the order of their beginnings; each lane has as many rows as calls overlap in it. */
function prepareLanes() {
  const byKey = new Map();
  for (const i of shown) {
    const key = calls[state.rows][i];
    (byKey.get(key) || byKey.set(key, []).get(key)).push(i);
  }
  let row = 0;
  lanes = [...byKey.keys()].sort((a, b) => a - b).map((key) => {
    const items = byKey.get(key).sort((a, b) => begin[a] - begin[b] || calls.seq[a] - calls.seq[b]);
    const lane = { key, items, row, ...(state.rows === "cpu" ? { rows: 1, rowOf: null } : stack(items)) };
    row += lane.rows;
    return lane;
  });
}

/* Threads share a process: what overlaps is stacked, at most four deep. */
function stack(items) {
  const free = [], rowOf = new Uint8Array(items.length);
  items.forEach((i, k) => {
    const row = free.findIndex((time) => time <= begin[i]);
    rowOf[k] = row >= 0 ? row : Math.min(free.length, 3);
    free[rowOf[k]] = Math.max(free[rowOf[k]] || 0, end[i]);
  });
  return { rows: Math.max(1, free.length), rowOf };
}

const laneName = (key) => (state.rows === "cpu" ? cpuName(key) : processName(key));
