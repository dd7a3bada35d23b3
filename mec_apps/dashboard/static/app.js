// Asks for the state once a second and shows it, or says that there is none to show.

import * as sections from "./sections.js";
import { setText } from "./elements.js";
import { ago } from "./quantities.js";

const PERIOD_MS = 1000;
const PATIENCE_MS = 4000;

const freshness = document.getElementById("freshness");
const alarm = document.getElementById("alarm");
let lastAnswerMs = null;

async function readState() {
  const response = await fetch("state", { signal: AbortSignal.timeout(PATIENCE_MS), cache: "no-store" });
  const document_ = await response.json();
  if (!response.ok) throw new Error(document_.error ?? `status ${response.status}`);
  return document_;
}

function showState(state) {
  document.querySelector("main").hidden = false;
  const colours = sections.chooseColours(state);
  sections.showModel(state);
  sections.showLayers(state, colours);
  sections.showGateways(state);
  sections.showNodes(state, colours);
  sections.showLinks(state);
  sections.showDecisions(state);
  sections.showReconfigurations(state);
}

function sayLive() {
  lastAnswerMs = performance.now();
  freshness.dataset.state = "live";
  setText(freshness, "live");
  alarm.hidden = true;
  setText(alarm, "");
  document.body.classList.remove("stale");
}

/** The alarm is read out once; the age that counts up stands elsewhere. */
function sayUnreachable(error) {
  freshness.dataset.state = "lost";
  setText(freshness, lastAnswerMs === null ? "no state yet" : `last seen ${ago((performance.now() - lastAnswerMs) / 1000)}`);
  alarm.hidden = false;
  setText(alarm, `The platform cannot be reached (${error.message}). ${lastAnswerMs === null ? "Still trying." : "What you see is the last state it gave."}`);
  document.body.classList.add("stale");
}

async function poll() {
  try {
    showState(await readState());
    sayLive();
  } catch (error) {
    sayUnreachable(error);
  }
  setTimeout(poll, PERIOD_MS);
}

poll();
