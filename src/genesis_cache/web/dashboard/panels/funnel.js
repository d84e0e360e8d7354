// The tier funnel: of all reads, which part each step answers and which part goes on to the next.

import { bar, byId, fill, make, setText } from "../dom.js";
import { lapse, percent, short, wait } from "../format.js";
import { newest, sum } from "../points.js";
import { t } from "../words.js";

const body = byId("funnel").tBodies[0];

export function show(figures, columns, span) {
  const steps = stepsOf(figures, columns);
  const total = steps.reduce((all, step) => all + step.count, 0);
  const seconds = Math.max(1, (columns.t.at(-1) ?? 0) - (columns.t[0] ?? 0) + 1);
  let answered = 0;
  fill(body, steps.map((step) => {
    const share = total ? step.count / total : 0;
    const row = make("tr", { "data-step": step.name },
      make("th", { scope: "row", class: "swatch", "data-color": step.name }, step.label, make("span", { class: "dim" }, ` ${step.note}`)),
      make("td", { class: "part" }, bar(step.name, Math.min(answered, 1), share)),
      make("td", { class: "number" }, total ? percent(share) : "–"),
      make("td", { class: "number" }, total ? short(step.count / seconds) : "–"),
      make("td", { class: "number dim" }, wait(step.p50)), make("td", { class: "number dim" }, wait(step.p99)));
    answered += share;
    return row;
  }));
  setText(byId("funnel-note"), t("funnelNote", { time: lapse(span), count: short(total) }));
}

function stepsOf(figures, columns) {
  const layers = Object.entries(figures.layer_statistics).map(([layer, row]) => ({
    name: layer, label: layer.toUpperCase(), note: row.tier, count: sum(columns[`hits.${layer}`]),
    p50: newest(columns[`p50.${layer}`]) ?? (row.p50_ms || null), p99: newest(columns[`p99.${layer}`]) ?? (row.p99_ms || null),
  }));
  const load = { p50: newest(columns["p50.load"]), p99: newest(columns["p99.load"]) };
  return [
    ...layers,
    { name: "stale", label: t("stale"), note: t("staleNote"), count: sum(columns.stale), p50: null, p99: null },
    { name: "waited", label: t("waited"), note: t("waitedNote"), count: sum(columns.waited), p50: null, p99: null },
    { name: "missed", label: t("missed"), note: t("missedNote"), count: sum(columns.missed), ...load },
  ];
}
