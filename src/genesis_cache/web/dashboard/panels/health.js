// Alerts, the state of each tier, and advice with its evidence.

import { byId, fill, make, setText } from "../dom.js";
import { percent, short, wait } from "../format.js";
import { has, t } from "../words.js";

export function show(figures) {
  const { alerts, recommendations } = figures.efficiency;
  fill(byId("alerts").querySelector("ul"), alerts.map(({ name, severity, message }) =>
    make("li", { class: "alert", "data-severity": severity }, make("b", {}, t(`alert_${name}`)), make("span", {}, alertText(name, message, figures)))));
  byId("alerts").hidden = alerts.length === 0;
  fill(byId("tiers"), Object.entries(figures.health.tiers).map(([layer, tier]) => tierRow(layer, tier, figures.layer_statistics[layer] ?? {})));
  fill(byId("facts"), facts(figures).flatMap(([name, told, level]) => [make("dt", {}, name), make("dd", { "data-level": level }, told)]));
  const down = Object.entries(figures.health.tiers).filter(([, tier]) => !tier.up).map(([layer]) => layer);
  const told = recommendations.filter(({ title }) => !down.some((layer) => title.startsWith(`${layer} `))); // said above
  fill(byId("advice"), told.length || down.length
    ? told.map(({ title, evidence, action }) => make("p", { lang: "en" }, make("b", {}, title), `: ${evidence}. `, make("span", {}, sentence(action))))
    : [make("p", { class: "quiet" }, t("noAdvice"))]);
}

// An alert in the page's language, made of the figures that it is about; as it was sent where its name is new.
function alertText(name, message, { global_statistics: whole, layer_statistics: layers }) {
  const layer = message.split(" ", 1)[0];
  const row = layers[layer];
  if (name === "low_hit_ratio") return t("alertLowHitRatio", { ratio: percent(whole.global_hit_ratio, 0), count: short(whole.requests) });
  if (row === undefined || !has(`alert_${name}`)) return message;
  const tier = `${layer.toUpperCase()} (${row.tier})`;
  if (name === "tier_down") return t("alertTierDown", { tier, reason: row.reason ?? message });
  const pushed = (row.evictions.size ?? 0) + (row.evictions.entries ?? 0);
  return t("alertSaturation", { tier, full: row.capacity_bytes ? percent(row.size_bytes / row.capacity_bytes, 0) : "–", count: short(pushed) });
}

// What else an operator asks for: whether changes are heard, what the source has to do, and how it takes it.
function facts({ coherence, namespaces }) {
  const rows = [];
  if (coherence?.log && (coherence.lag.own.count || coherence.status !== "hearing")) {
    const { own, other_hosts: others, this_host: neighbours } = coherence.lag;
    const lag = [others, neighbours, own].find(({ count }) => count) ?? own;
    const told = coherence.status === "hearing" ? t("heardWithin", { p50: wait(lag.p50_ms), p99: wait(lag.p99_ms) }) : t("notHeard", { time: wait(coherence.heard_ago_ms) });
    rows.push([t("changes"), told, coherence.status === "hearing" ? "ok" : "warning"]);
    if (coherence.samples.compared) {
      rows.push([t("compared"), t("comparedTold", { count: short(coherence.samples.compared), differed: short(coherence.samples.differed) }), "ok"]);
    }
  }
  const spaces = Object.entries(namespaces);
  const total = (name) => spaces.reduce((sum, [, row]) => sum + (row[name] ?? 0), 0);
  rows.push([t("loads"), t("loadsTold", { running: short(total("loads_running")), queued: short(total("loads_queued")) }), total("loads_queued") ? "warning" : "ok"]);
  const unwell = spaces.filter(([, row]) => row.origin && row.origin !== "well");
  if (unwell.length) rows.push([t("source"), unwell.map(([name, row]) => `${name}: ${row.origin}`).join(", "), "warning"]);
  return rows;
}

function tierRow(layer, tier, row) {
  const level = tier.up ? (tier.reason || row.owed ? "warning" : "ok") : "critical";
  const notes = [tier.reason, row.owed ? t("owed", { count: short(row.owed) }) : null, row.queued ? t("queued", { count: short(row.queued) }) : null].filter(Boolean);
  return make("li", { "data-level": level },
    make("span", { class: "dot", "aria-hidden": "true" }),
    make("span", { class: "name" }, `${layer.toUpperCase()} `, make("span", { class: "dim" }, tier.tier)),
    make("span", { class: "is" }, tier.up ? (level === "ok" ? t("up") : t("stateDegraded")) : t("down")),
    ...notes.map((note) => make("span", { class: "why" }, note)));
}

const sentence = (text) => `${text.charAt(0).toUpperCase()}${text.slice(1)}.`;

// The pill beside the title: the gravest thing in two words.
export function tellState(pill, figures) {
  const { alerts } = figures.efficiency;
  const critical = alerts.filter(({ severity }) => severity === "critical").length;
  const level = critical ? "critical" : alerts.length || figures.health.status !== "ok" ? "warning" : "ok";
  pill.dataset.level = level;
  setText(pill, critical ? t("stateCritical", { count: critical }) : alerts.length ? t("stateAlerts", { count: alerts.length }) : t(level === "ok" ? "stateOk" : "stateDegraded"));
}
