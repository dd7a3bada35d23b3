// One function per section of the page: state in, document out.

import { element, fillTable, redraw, setText, swatch } from "./elements.js";
import * as show from "./quantities.js";

const COLOURS = 8;
const HISTORY = 60;

const at = (id) => document.getElementById(id);

/** Node name to colour number. By name, so that a node keeps its colour when the plan changes. */
export function chooseColours(state) {
  const names = new Set([...state.nodes.map((node) => node.name), ...stagesOf(state).map((stage) => stage.node)]);
  return new Map([...names].sort().map((name, index) => [name, index % COLOURS]));
}

/** Stages of all chains. */
const standbysOf = (state) => [state.plan, ...state.replicas].flatMap((plan) => plan?.standbys ?? []);
const stagesOf = (state) => [state.plan, ...state.replicas].flatMap((plan) => plan?.stages ?? []);

export function showModel(state) {
  setText(at("model"), state.model ? `${state.model.name}, ${show.plural(state.model.blocks, "block")}` : "No node has reported a model yet");
  const chain = state.replicas.length > 0 ? `chain ${state.plan?.chain}, ` : "";
  setText(at("plan"), state.plan ? `${chain}plan epoch ${state.plan.epoch}` : "");
}

export function showLayers(state, colours) {
  const stages = state.plan?.stages ?? [];
  const chain = at("chain");
  chain.setAttribute("aria-label", inWords(stages) || "No split plan yet");
  redraw(chain, stages, () =>
    stages.length > 0 ? stages.map((stage) => drawStage(stage, colours)) : [element("p", "empty", "No split plan is committed yet.")],
  );
  redraw(at("stages"), stages, () => stages.map((stage) => drawLegend(stage, colours)));
  redraw(at("replicas"), state.replicas, () => state.replicas.flatMap((plan) => drawReplica(plan, colours)));
}

const inWords = (stages) => stages.map((stage) => `blocks ${show.blocks(stage.start, stage.stop)} on ${stage.node}`).join(", then ");

/** Another chain, below the first. */
function drawReplica(plan, colours) {
  const bars = element("div", "chain", ...plan.stages.map((stage) => drawStage(stage, colours)));
  bars.setAttribute("role", "img");
  bars.setAttribute("aria-label", inWords(plan.stages));
  const title = element("p", "quiet replica", `chain ${plan.chain}, plan epoch ${plan.epoch}`);
  return [title, bars, element("ol", "stages", ...plan.stages.map((stage) => drawLegend(stage, colours)))];
}

function drawStage(stage, colours) {
  const bar = element("div", "bar");
  for (let block = stage.start; block < stage.stop; block += 1) {
    const cell = element("span", "block");
    cell.dataset.colour = colours.get(stage.node);
    cell.title = `block ${block} on ${stage.node}`;
    bar.append(cell);
  }
  const drawn = element("div", "stage", element("span", "label", stage.node), bar, element("span", "range", show.blocks(stage.start, stage.stop)));
  drawn.style.flexGrow = stage.stop - stage.start;
  return drawn;
}

function drawLegend(stage, colours) {
  const size = `${show.plural(stage.stop - stage.start, "block")} (${show.blocks(stage.start, stage.stop)})`;
  return element("li", "", swatch(colours.get(stage.node)), element("b", "", stage.node), element("span", "quiet", size));
}

const histories = new Map();

export function showGateways(state) {
  for (const name of histories.keys()) {
    if (!state.gateways.some((gateway) => gateway.name === name)) histories.delete(name);
  }
  const tiles = state.gateways.map((gateway) => {
    const history = [...(histories.get(gateway.name) ?? []), gateway.tokens_per_s].slice(-HISTORY);
    histories.set(gateway.name, history);
    return { ...gateway, history };
  });
  redraw(at("gateway-tiles"), tiles, () => (tiles.length > 0 ? tiles.map(drawTile) : [element("li", "empty", "No gateway has registered.")]));
}

function drawTile(gateway) {
  const speed = element("p", "speed", element("strong", "", show.digits(gateway.tokens_per_s)), " tokens/s");
  const sessions = element("p", "quiet", show.plural(gateway.sessions, "session"));
  return element("li", "tile", element("p", "name", gateway.name), speed, sessions, drawHistory(gateway.history));
}

/** The last minute as a line; the number beside it says the same, so assistants skip it. */
function drawHistory(values) {
  const space = "http://www.w3.org/2000/svg";
  const chart = document.createElementNS(space, "svg");
  chart.setAttribute("viewBox", `0 0 ${HISTORY - 1} 20`);
  chart.setAttribute("preserveAspectRatio", "none");
  chart.setAttribute("aria-hidden", "true");
  const top = Math.max(1, ...values);
  const offset = HISTORY - values.length;
  const points = values.map((value, index) => `${offset + index},${(19 - (18 * value) / top).toFixed(2)}`);
  const line = document.createElementNS(space, "polyline");
  line.setAttribute("points", points.join(" "));
  chart.append(line);
  return chart;
}

export function showNodes(state, colours) {
  const stages = new Map(stagesOf(state).map((stage) => [stage.node, stage]));
  const columns = [
    { title: "Node", cell: (node) => ({ text: node.name, colour: colours.get(node.name), tag: node.emulated ? "emulated" : "" }) },
    { title: "Blocks", cell: (node) => (stages.has(node.name) ? show.blocks(stages.get(node.name).start, stages.get(node.name).stop) : "idle") },
    ...(standbysOf(state).length > 0 ? [{ title: "Stands by for", cell: (node) => standingBy(state, node) }] : []),
    { title: "Trusted", cell: (node) => (node.trusted ? "yes" : "no") },
    { title: "Threads", kind: "number", cell: (node) => show.digits(node.threads) },
    { title: "Memory", kind: "number", cell: (node) => show.memory(node.memory_bytes) },
    { title: "Block time", kind: "number", cell: (node) => show.microseconds(node.block_time_us) },
    { title: "Sessions", kind: "number", cell: (node) => show.digits(node.sessions) },
    { title: "Target", kind: "code", cell: (node) => node.target },
    { title: "Address", kind: "code", cell: (node) => node.address },
  ];
  fillTable(at("nodes"), columns, state.nodes, "No edge node has reported yet.");
}

const standingBy = (state, node) =>
  standbysOf(state)
    .filter((standby) => standby.node === node.name)
    .map((standby) => show.blocks(standby.start, standby.stop))
    .join(", ");

export function showLinks(state) {
  const columns = [
    { title: "Link", cell: (link) => ({ text: `${link.source} → ${link.target}`, tag: link.emulated ? "emulated" : "" }) },
    { title: "Rate", kind: "number", cell: (link) => show.rate(link.bytes_per_s) },
    { title: "Round trip", kind: "number", cell: (link) => show.milliseconds(link.round_trip_ms) },
  ];
  fillTable(at("links"), columns, state.links, "No link has been measured yet.");
}

const newestFirst = (events) => [...events].sort((one, other) => other.at_s - one.at_s);

export function showDecisions(state) {
  const columns = [
    { title: "Decision", cell: (decision) => decision.kind },
    { title: "When", kind: "time", cell: (decision) => show.ago(state.now_s - decision.at_s) },
    { title: "Why", kind: "words", cell: (decision) => decision.reason },
  ];
  fillTable(at("decisions"), columns, newestFirst(state.decisions).slice(0, 8), "No decision yet.");
}

export function showReconfigurations(state) {
  const columns = [
    { title: "Change", cell: (change) => change.kind },
    { title: "When", kind: "time", cell: (change) => show.ago(state.now_s - change.at_s) },
    { title: "Outcome", cell: (change) => change.outcome },
    { title: "Longest pause", kind: "number", cell: (change) => show.milliseconds(change.pause_ms_max) },
    { title: "Moved", kind: "number", cell: (change) => show.moved(change.moved_bytes) },
    { title: "Why", kind: "words", cell: (change) => change.reason },
  ];
  fillTable(at("reconfigurations"), columns, newestFirst(state.reconfigurations).slice(0, 12), "The plan has not changed yet.");
}
