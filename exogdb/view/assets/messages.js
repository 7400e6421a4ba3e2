/* ---- who talks to whom: for each channel, who sent into it and who received from it ---- */
const FEW_CHANNELS = 8, LINE = 30;
let showsAllChannels = false;

function findChannels() {
  const channels = new Map();
  for (const i of shown) {
    const mark = calls.channel[i];
    if (mark === null) continue;
    const key = mark < 0 ? ~mark : mark, side = mark < 0 ? "receivers" : "senders";
    const channel = channels.get(key) || channels.set(key, { name: texts[key], messages: 0, senders: new Map(), receivers: new Map() }).get(key);
    channel.messages += 1;
    channel[side].set(calls.process[i], (channel[side].get(calls.process[i]) || 0) + 1);
  }
  return [...channels.values()].sort((a, b) => b.messages - a.messages);
}

function drawMessages() {
  const channels = findChannels(), some = showsAllChannels ? channels : channels.slice(0, FEW_CHANNELS);
  const host = byId("messages");
  if (!channels.length) {
    host.replaceChildren(make("p", { class: "hint" }, "None of these calls sent or received a message (ipc_send, ipc_recv)."));
    return;
  }
  const most = Math.max(...channels.flatMap((channel) => [...channel.senders.values(), ...channel.receivers.values()]));
  host.replaceChildren(...some.map((channel) => drawChannel(channel, most)));
  if (some.length < channels.length) {
    host.append(make("button", { type: "button", click: () => { showsAllChannels = true; drawMessages(); } }, `Show all ${count(channels.length)} channels`));
  }
  host.append(make("p", { class: "hint" }, "Numbers are messages sent or received successfully. Channels are told apart by their number alone."));
}

function drawChannel(channel, most) {
  const sides = [channel.senders, channel.receivers].map((side) => [...side].sort((a, b) => b[1] - a[1]));
  const height = Math.max(1, ...sides.map((side) => side.length)) * LINE;
  const lists = sides.map((side, k) => make("ul", { "aria-label": `${k ? "received from" : "sent into"} channel ${channel.name}` }, ...side.map(partner)));
  const middle = make("button", { type: "button", title: "Show only this channel", click: () => toggleWord(`channel=${channel.name}`) }, `channel ${channel.name}`);
  return make("div", { class: "channel" }, lists[0], edges(sides[0], height, most, 0), middle, edges(sides[1], height, most, 1), lists[1]);
}

function partner([process, messages]) {
  return make("li", {}, make("span", {}, count(messages)),
    make("button", { type: "button", title: "Show only this process", click: () => toggleWord(`P${process}`) }, processName(process)));
}

function edges(side, height, most, isRight) {
  const svg = make("svg", { viewBox: `0 0 100 ${height}`, height, preserveAspectRatio: "none", "aria-hidden": "true" });
  side.forEach(([, messages], k) => {
    const outer = height / 2 + (k - (side.length - 1) / 2) * LINE, [from, to] = isRight ? [height / 2, outer] : [outer, height / 2];
    svg.append(make("path", { class: "edge", d: `M0,${from} C50,${from} 50,${to} 100,${to}`, "stroke-width": 1 + (messages / most) * 7 }));
  });
  return svg;
}
