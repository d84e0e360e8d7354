// Calls of the cache's own routes, relative to this page, so that they work under any prefix.

import { byId } from "./dom.js";
import { t } from "./words.js";

export class Refused extends Error {}

export const token = () => byId("token").value.trim();

function bearer() {
  return token() ? { Authorization: `Bearer ${token()}` } : {};
}

async function answered(url, options) {
  let answer;
  try {
    answer = await fetch(url, { cache: "no-store", credentials: "omit", ...options });
  } catch {
    throw new Refused(t("noAnswer"));
  }
  const body = await answer.json().catch(() => ({}));
  if (!answer.ok && !(answer.status === 404 && body.verdict)) throw new Refused(body.detail ?? t("refused", { status: answer.status }));
  return body;
}

// What each tier holds of a key; with its value where the token is given for it.
export async function explain({ key, namespace, owner }, { withValue = false } = {}) {
  if (key === "." || key === "..") throw new Refused(t("dots", { key })); // however written, they are a way up to browsers
  const said = new URLSearchParams();
  if (namespace) said.set("namespace", namespace);
  if (owner) said.set("owner", owner);
  if (withValue) said.set("value", "true");
  const query = said.size ? `?${said}` : "";
  return answered(`keys/${encodeURIComponent(key)}${query}`, { headers: bearer() });
}

export function post(verb, body) {
  if (!token()) throw new Refused(t("tokenFirst"));
  return answered(`../../cache/${verb}`, { method: "POST", headers: { "Content-Type": "application/json", ...bearer() }, body: JSON.stringify(body) });
}
