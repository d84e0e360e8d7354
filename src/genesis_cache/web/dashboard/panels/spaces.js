// A row a namespace, the busiest first.

import { byId, fill, make } from "../dom.js";
import { percent, short } from "../format.js";
import { t } from "../words.js";

const MOST = 100;
const ROOT = "(root)";

export function show(figures) {
  const rows = Object.entries(figures.namespaces).sort(([, one], [, other]) => other.requests - one.requests).slice(0, MOST);
  fill(byId("spaces").tBodies[0], rows.map(([name, row]) => make("tr", {},
    make("th", { scope: "row" }, name === ROOT ? t("root") : name),
    make("td", { class: "number" }, short(row.requests)),
    make("td", { class: "number" }, row.requests ? percent(row.hit_ratio) : "–"),
    make("td", { class: "number" }, short(row.loads)),
    make("td", { class: "number" }, short(row.load_errors)))));
  fill(byId("namespaces"), rows.filter(([name]) => name !== ROOT).map(([name]) => make("option", { value: name })));
}
