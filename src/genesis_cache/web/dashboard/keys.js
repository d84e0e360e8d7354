// Found keys: a card each, with a row a tier; looked at again, forgotten or put away by its buttons.

import { Refused, explain, post } from "./calls.js";
import { byId, make, tell } from "./dom.js";
import { lapse, size } from "./format.js";
import { state } from "./state.js";
import { t } from "./words.js";

const list = byId("found");
const told = byId("find-told");
const cards = new Map(); // by name: what was last heard of each key

const nameOf = ({ key, namespace, owner }) => JSON.stringify([key, namespace, owner]);
const VERDICTS = { fresh: "fresh", stale: "verdictStale", absent: "absent", invalidated: "invalidated" };

async function attempt(work) {
  try {
    await work();
  } catch (error) {
    if (!(error instanceof Refused)) throw error;
    tell(told, error.message, "bad");
  }
}

async function look(place, options) {
  tell(told, t("searching"));
  const found = await explain(place, options);
  cards.set(nameOf(place), { place, found });
  keep();
  draw();
  tell(told, t("found", { key: place.key, verdict: t(VERDICTS[found.verdict]) }));
}

function keep() {
  state.set("keys", [...cards.values()].map(({ place }) => place));
}

function putAway(place) {
  cards.delete(nameOf(place));
  keep();
  draw();
}

async function forget(place) {
  if (place.owner) throw new Refused(command(place)); // the route forgets keys of namespaces only
  const done = await post("invalidate", { key: place.key, ...(place.namespace ? { namespace: place.namespace } : {}) });
  putAway(place);
  tell(told, done.status === "degraded" ? t("owing", { tiers: done.degraded.join(", ") }) : t("gone", { key: place.key }), done.status === "degraded" ? "warn" : "good");
  byId("find").elements.key.focus();
}

const quoted = (text) => `'${text.replaceAll("'", "'\\''")}'`;

function command({ key, namespace, owner }) {
  return ["genesis-cache invalidate", ...(namespace ? ["--namespace", quoted(namespace)] : []), ...(owner ? ["--owner", quoted(owner)] : []), "--", quoted(key)].join(" ");
}

async function copy(place) {
  try {
    await navigator.clipboard.writeText(command(place));
    tell(told, t("copied"), "good");
  } catch {
    tell(told, t("notCopied", { command: command(place) }), "warn");
  }
}

export function draw() {
  const control = !byId("control-forms").disabled;
  byId("find-note").hidden = cards.size > 0;
  list.replaceChildren(...[...cards.values()].toReversed().map(({ place, found }) => card(place, found, control)));
}

function card(place, found, control) {
  const button = (word, work, kind = "") => make("button", { type: "button", class: `small ${kind}`, onclick: () => attempt(work) }, t(word));
  return make("li", { "data-key": place.key },
    make("div", { class: "found-head" },
      make("code", {}, [place.namespace, place.owner, place.key].filter(Boolean).join(" › ")),
      make("span", { class: "verdict", "data-verdict": found.verdict }, t(VERDICTS[found.verdict])),
      make("span", { class: "buttons" },
        button("again", () => look(place)), control ? button("showValue", () => look(place, { withValue: true })) : null,
        button("copyCommand", () => copy(place)), control && !place.owner ? button("forgetKey", () => forget(place), "danger") : null,
        button("remove", async () => putAway(place)))),
    make("p", { class: "reason", lang: "en" }, found.reason),
    make("div", { class: "scroll" }, make("table", {}, heads(), make("tbody", {}, found.tiers.map(row)))),
    "value" in found ? make("pre", { tabindex: "0" }, JSON.stringify(found.value, null, 2)) : null);
}

function heads() {
  const names = [["layer"], ["present"], ["age", true], ["left", true], ["size", true], ["priority"], ["tags"]];
  return make("thead", {}, make("tr", {}, names.map(([name, isNumber]) => make("th", { scope: "col", class: isNumber ? "number" : null }, t(name)))));
}

function row(tier) {
  const figure = (value) => make("td", { class: "number" }, tier.present ? value : "–");
  return make("tr", {},
    make("th", { scope: "row", class: "swatch", "data-color": tier.layer }, tier.layer.toUpperCase(), make("span", { class: "dim" }, ` ${tier.tier}`)),
    make("td", {}, tier.present ? (tier.fresh ? t("yes") : t("isStale")) : t("no")),
    figure(lapse(tier.age)), figure(tier.ttl_left === null ? t("forever") : lapse(tier.ttl_left)), figure(tier.size_bytes === null ? "–" : size(tier.size_bytes)),
    make("td", {}, (tier.priority ?? "–").toLowerCase()), make("td", { class: "tags" }, tier.tags.join(", ") || "–"));
}

async function lookAtAll(places) {
  for (const place of places) await attempt(() => look(place)); // one that is refused hides no other
}

export function start() {
  byId("find").addEventListener("submit", (event) => {
    event.preventDefault();
    const { key, namespace, owner } = event.target.elements;
    attempt(() => look({ key: key.value, namespace: namespace.value.trim(), owner: owner.value.trim() }));
  });
  lookAtAll(state.get("keys"));
}
