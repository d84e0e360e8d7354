// The savings strip: six figures that say whether the cache pays.

import { byId, make, setText } from "../dom.js";
import { lapse, number, percent, short, wait } from "../format.js";
import { sum } from "../points.js";
import { t } from "../words.js";

const NAMES = ["hitRatio", "reads", "avoided", "saved", "response", "score"];
const LINES = { hitRatio: true, reads: true };
const NAMESPACE = "http://www.w3.org/2000/svg";

const tiles = {};
for (const name of NAMES) {
  const [label, value, note] = [make("dt"), make("dd", { class: "value" }), make("dd", { class: "note" })];
  let line = null;
  const tile = make("div", { id: `tile-${name}` }, label, value, note);
  if (LINES[name]) {
    const svg = document.createElementNS(NAMESPACE, "svg");
    svg.setAttribute("viewBox", "0 0 100 26");
    svg.setAttribute("preserveAspectRatio", "none");
    svg.setAttribute("aria-hidden", "true");
    line = document.createElementNS(NAMESPACE, "path");
    svg.append(line);
    tile.append(svg);
  }
  tiles[name] = { label, value, note, line };
  byId("savings").querySelector("dl").append(tile);
}

export function show(figures, columns) {
  const whole = figures.global_statistics;
  const reads = columns.requests ?? [];
  const ratios = reads.map((count, place) => (count ? Math.max(0, 1 - (columns.missed[place] + columns.waited[place]) / count) : null));
  const total = sum(reads);
  const ratio = total ? Math.max(0, 1 - (sum(columns.missed) + sum(columns.waited)) / total) : whole.requests ? whole.global_hit_ratio : null;
  put("hitRatio", ratio === null ? "–" : number(ratio * 100, 1), ratio === null ? "" : "%", t("hitRatioNote", { ratio: percent(whole.global_hit_ratio) }));
  const lately = reads.slice(-5);
  put("reads", short(lately.length ? sum(lately) / lately.length : 0), t("second"), t("readsNote", { count: short(whole.requests) }));
  put("avoided", short(whole.loads_avoided), "", t("avoidedNote", { count: short(whole.loads) }));
  put("saved", ...split(lapse(whole.seconds_saved)), t("savedNote"));
  put("response", ...split(wait(whole.average_response_time_ms)), whole.load_p50_ms ? t("responseNote", { time: wait(whole.load_p50_ms) }) : t("noLoad"));
  put("score", number(figures.efficiency.score), t("scoreOf"), t("scoreNote"));
  draw(tiles.hitRatio.line, ratios, 0, 1);
  draw(tiles.reads.line, reads, 0, Math.max(...reads, 1));
}

function put(name, value, unit, note) {
  const tile = tiles[name];
  setText(tile.label, t(name));
  if (tile.value.dataset.is !== value + unit) {
    tile.value.dataset.is = value + unit;
    tile.value.replaceChildren(value, ...(unit ? [make("small", {}, unit)] : []));
  }
  setText(tile.note, note);
  tile.note.title = note;
}

// The first number apart from the rest, which is written small.
function split(text) {
  const place = text.indexOf(" ");
  return place < 0 ? [text, ""] : [text.slice(0, place), text.slice(place + 1)];
}

function draw(line, values, low, high) {
  line.parentNode.toggleAttribute("hidden", !values.some((value) => value));
  const width = Math.max(values.length - 1, 1);
  let path = "";
  let isOpen = false;
  values.forEach((value, place) => {
    if (value === null) { isOpen = false; return; }
    path += `${isOpen ? "L" : "M"}${((place / width) * 100).toFixed(1)} ${(25 - ((value - low) / (high - low)) * 24).toFixed(1)}`;
    isOpen = true;
  });
  line.setAttribute("d", path);
}
