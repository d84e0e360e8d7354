// Making the cache forget: everything is counted first, and clearing asks for a word to be typed.

import { Refused, post } from "./calls.js";
import { byId, make, tell } from "./dom.js";
import { number } from "./format.js";
import { t } from "./words.js";

const forgetForm = byId("forget");
const clearForm = byId("clear");
const confirmForm = byId("confirm");
const forgetTold = byId("forget-told");
const clearTold = byId("clear-told");
let wanted = null; // what was counted and may now be done
let cleared = null;

function counted({ matched }) {
  if (matched === null) return t("cannotCount");
  if (matched === 0) return t("wouldReachNone");
  return matched === 1 ? t("wouldReachOne") : t("wouldReach", { count: number(matched) });
}

function tellDone(element, { status, degraded, matched }) {
  if (status === "degraded") tell(element, t("owing", { tiers: degraded.join(", ") }), "warn");
  else if (matched === null) tell(element, t("doneUncounted"), "good");
  else tell(element, matched === 1 ? t("doneOne") : t("done", { count: number(matched) }), "good");
}

async function attempt(element, work) {
  try {
    await work();
  } catch (error) {
    if (!(error instanceof Refused)) throw error;
    tell(element, error.message, "bad");
  }
}

function forgetBody() {
  const { by, name, namespace } = forgetForm.elements;
  return { [by.value]: name.value, ...(namespace.value.trim() ? { namespace: namespace.value.trim() } : {}) };
}

function clearBody() {
  const { namespace, tier } = clearForm.elements;
  const name = namespace.value.trim();
  return { ...(name ? { namespace: name } : { all: true }), ...(tier.value ? { tier: tier.value } : {}) };
}

const wordFor = (body) => body.namespace ?? t("everything");

function takeBack() {
  wanted = null;
  forgetForm.elements.do.disabled = true;
  tell(forgetTold, "");
}

function takeBackClearing() {
  cleared = null;
  confirmForm.hidden = true;
  confirmForm.elements.typed.value = "";
  confirmForm.querySelector("button").disabled = true;
  tell(clearTold, "");
}

export function start() {
  for (const form of document.querySelectorAll("#control form")) form.addEventListener("submit", (event) => event.preventDefault());
  forgetForm.addEventListener("input", takeBack);
  forgetForm.addEventListener("submit", () => attempt(forgetTold, async () => {
    const body = forgetBody();
    const answer = await post("invalidate", { ...body, dry_run: true });
    wanted = body;
    forgetForm.elements.do.disabled = false;
    tell(forgetTold, counted(answer));
  }));
  forgetForm.elements.do.addEventListener("click", () => attempt(forgetTold, async () => {
    const body = wanted;
    takeBack();
    tellDone(forgetTold, await post("invalidate", body));
  }));
  clearForm.addEventListener("input", takeBackClearing);
  clearForm.addEventListener("submit", () => attempt(clearTold, async () => {
    const body = clearBody();
    const answer = await post("clear", { ...body, dry_run: true });
    cleared = body;
    byId("confirm-label").replaceChildren(t("confirm"), " ", make("code", {}, wordFor(body)));
    confirmForm.hidden = false;
    tell(clearTold, counted(answer));
    confirmForm.elements.typed.focus();
  }));
  confirmForm.addEventListener("input", () => {
    confirmForm.querySelector("button").disabled = cleared === null || confirmForm.elements.typed.value !== wordFor(cleared);
  });
  confirmForm.addEventListener("submit", () => attempt(clearTold, async () => {
    if (cleared === null || confirmForm.elements.typed.value !== wordFor(cleared)) return;
    const body = cleared;
    takeBackClearing();
    tellDone(clearTold, await post("clear", body));
  }));
}

// What can be controlled here, as the figures tell it; whether that has changed.
export function allow(isAllowed, layers) {
  const hasChanged = byId("control-forms").disabled === isAllowed;
  byId("control-off").hidden = isAllowed;
  byId("control-forms").disabled = !isAllowed;
  byId("control-forms").hidden = !isAllowed;
  const select = clearForm.elements.tier;
  const names = Object.entries(layers).map(([layer, row]) => [layer, `${layer.toUpperCase()} ${row.tier}`]);
  if (select.options.length !== names.length + 1) {
    select.replaceChildren(select.options[0], ...names.map(([value, label]) => make("option", { value }, label)));
  }
  return hasChanged;
}
