// What the page shows is in its address, so that it can be kept and sent to somebody else.

const DEFAULTS = { window: "300", theme: "auto", language: navigator.language.startsWith("es") ? "es" : "en", paused: "" };
const ALLOWED = { window: ["60", "300", "900"], theme: ["auto", "light", "dark"], language: ["en", "es"], paused: ["", "1"] };

const listeners = [];
const now = read();

function read() {
  const said = new URLSearchParams(location.search);
  const state = { keys: said.getAll("key").slice(0, 20).map(parsedKey) };
  for (const [name, standard] of Object.entries(DEFAULTS)) {
    const value = said.get(name);
    state[name] = ALLOWED[name].includes(value) ? value : standard;
  }
  return state;
}

function parsedKey(text) {
  try {
    const [key, namespace = "", owner = ""] = JSON.parse(text);
    if (typeof key === "string") return { key, namespace: String(namespace), owner: String(owner) };
  } catch { /* a bare key, as a person writes it into the address */ }
  return { key: text, namespace: "", owner: "" };
}

function written() {
  const said = new URLSearchParams();
  for (const [name, standard] of Object.entries(DEFAULTS)) if (now[name] !== standard) said.set(name, now[name]);
  for (const { key, namespace, owner } of now.keys) said.append("key", JSON.stringify([key, namespace, owner]));
  const query = said.toString();
  return location.pathname + (query ? `?${query}` : "");
}

export const state = {
  get: (name) => now[name],
  set(name, value) {
    if (now[name] === value) return;
    now[name] = value;
    history.replaceState(null, "", written());
    for (const listener of listeners) listener(name, value);
  },
  on: (listener) => listeners.push(listener),
};
