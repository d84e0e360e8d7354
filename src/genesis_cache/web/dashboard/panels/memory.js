// What each tier holds against what it may, and what had to leave it.

import { bar, byId, fill, make } from "../dom.js";
import { short, size } from "../format.js";
import { has, t } from "../words.js";

const body = byId("memory").tBodies[0];

export function show(figures) {
  fill(body, Object.entries(figures.layer_statistics).map(([layer, row]) => {
    const share = row.capacity_bytes ? row.size_bytes / row.capacity_bytes : 0;
    const left = Object.entries(row.evictions).filter(([, count]) => count).map(([reason, count]) => `${short(count)} ${has(`reason_${reason}`) ? t(`reason_${reason}`) : reason}`);
    const told = row.capacity_bytes ? t("of", { size: size(row.size_bytes), capacity: size(row.capacity_bytes) }) : size(row.size_bytes);
    return make("tr", { "data-layer": layer },
      make("th", { scope: "row", class: "swatch", "data-color": layer }, layer.toUpperCase(), make("span", { class: "dim" }, ` ${row.tier}`)),
      make("td", { class: "part" }, bar(layer, 0, share)),
      make("td", { class: "number" }, told), make("td", { class: "number" }, short(row.entries)),
      make("td", { class: left.length ? "" : "dim" }, left.join(", ") || t("none")));
  }));
}
