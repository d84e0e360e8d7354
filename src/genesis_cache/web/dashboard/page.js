// The page: hears the figures, keeps the last quarter of an hour of them, and has every panel show what it is about.

import { Chart } from "./charts.js";
import * as control from "./control.js";
import { byId, setText } from "./dom.js";
import { Feed } from "./feed.js";
import { clock, lapse, short, wait } from "./format.js";
import * as keys from "./keys.js";
import * as funnel from "./panels/funnel.js";
import * as health from "./panels/health.js";
import * as memory from "./panels/memory.js";
import * as savings from "./panels/savings.js";
import * as spaces from "./panels/spaces.js";
import { Points } from "./points.js";
import { state } from "./state.js";
import { t, translatePage } from "./words.js";

const points = new Points();
const outcomes = new Chart("outcomes", { kind: "stacked", shown: short, empty: "nothingYet" });
const latency = new Chart("latency", { kind: "lines", shown: wait, empty: "nothingTimed", isLog: true });
const evictions = new Chart("evictions", { kind: "lines", shown: short, empty: "nothingEvicted", title: "evictions" });
const dark = matchMedia("(prefers-color-scheme: dark)");
let figures = null;
let heardAt = 0;
let isLost = false;

function show() {
  if (figures === null) return;
  const span = Number(state.get("window"));
  const columns = points.last(span);
  const layers = Object.keys(figures.layer_statistics);
  const column = (name) => columns[name] ?? new Array(columns.t.length).fill(null);
  const layerName = (layer) => `${layer.toUpperCase()} ${figures.layer_statistics[layer].tier}`;
  savings.show(figures, columns);
  funnel.show(figures, columns, span);
  health.show(figures);
  memory.show(figures);
  spaces.show(figures);
  outcomes.show(columns.t, span, [
    ...layers.map((layer) => ({ name: layer, label: layerName(layer), color: layer, values: column(`hits.${layer}`) })),
    ...["stale", "waited", "missed"].map((name) => ({ name, label: t(name), color: name, values: column(name) })),
  ]);
  latency.show(columns.t, span, [...layers, "load"].flatMap((name) => [["p50", false], ["p99", true]].map(([quantile, dashed]) => ({
    name: `${quantile}.${name}`, label: `${name === "load" ? t("load") : name.toUpperCase()} ${quantile}`, color: name, dashed, values: column(`${quantile}.${name}`),
  }))));
  evictions.show(columns.t, span, layers.map((layer) => ({ name: layer, label: layerName(layer), color: layer, values: column(`evicted.${layer}`) })));
  if (control.allow(figures.process.control, figures.layer_statistics)) keys.draw();
  setText(byId("process"), t("process", { pid: figures.process.pid, time: lapse(figures.process.seconds), version: figures.process.version }));
  tellState();
}

function tellState() {
  const pill = byId("state");
  document.body.toggleAttribute("data-old", isLost);
  if (isLost) {
    pill.dataset.level = "critical";
    setText(pill, heardAt ? t("stateLost", { time: clock(heardAt) }) : t("noAnswer"));
  } else if (figures === null) {
    pill.dataset.level = "wait";
    setText(pill, t("stateWait"));
  } else if (state.get("paused")) {
    pill.dataset.level = "warning";
    setText(pill, t("statePaused"));
  } else {
    health.tellState(pill, figures);
  }
}

const feed = new Feed("events", {
  figures(heard) {
    figures = heard;
    heardAt = Date.now();
    isLost = false;
  },
  points(columns, isWhole) {
    if (isWhole) points.clear();
    points.add(columns);
    show();
    if (state.get("paused")) feed.pause(); // opened paused: it shows how things were then
  },
  lost() {
    isLost = true;
    tellState();
  },
});

function applyTheme() {
  const chosen = state.get("theme");
  document.documentElement.dataset.theme = chosen === "auto" ? (dark.matches ? "dark" : "light") : chosen;
  byId("theme").value = chosen;
}

function applyLanguage() {
  translatePage();
  byId("language").value = state.get("language");
  applyPause();
  keys.draw();
}

function applyPause() {
  const isPaused = state.get("paused") === "1";
  byId("pause").setAttribute("aria-pressed", String(isPaused));
  setText(byId("pause"), t(isPaused ? "resume" : "pause"));
}

state.on((name) => {
  if (name === "theme") applyTheme();
  if (name === "language") applyLanguage();
  if (name === "paused") {
    applyPause();
    if (state.get("paused")) feed.pause();
    else feed.open();
  }
  show();
});
dark.addEventListener("change", () => { applyTheme(); show(); });
byId("theme").addEventListener("change", (event) => state.set("theme", event.target.value));
byId("language").addEventListener("change", (event) => state.set("language", event.target.value));
byId("pause").addEventListener("click", () => state.set("paused", state.get("paused") ? "" : "1"));
for (const radio of document.querySelectorAll("#window input")) {
  radio.checked = radio.value === state.get("window");
  radio.addEventListener("change", () => state.set("window", radio.value));
}
addEventListener("resize", show);

applyTheme();
applyLanguage();
control.start();
keys.start();
tellState();
feed.open();
