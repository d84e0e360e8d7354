// Making elements: text is only ever set as text, so nothing that a key or a tag holds can become markup.

export const byId = (id) => document.getElementById(id);

export function make(tag, attributes = {}, ...children) {
  const element = document.createElement(tag);
  for (const [name, value] of Object.entries(attributes)) {
    if (value === undefined || value === null || value === false) continue;
    if (name === "class") element.className = value;
    else if (name.startsWith("on")) element.addEventListener(name.slice(2), value);
    else element.setAttribute(name, value === true ? "" : value);
  }
  element.append(...children.flat().filter((child) => child !== null && child !== undefined));
  return element;
}

// Puts children in place of those that are there, unless they say the same: what has the focus or is selected stays.
export function fill(parent, children) {
  const held = make("div", {}, children);
  if (held.innerHTML === parent.innerHTML) return;
  parent.replaceChildren(...held.childNodes);
}

export function setText(element, text) {
  if (element.textContent !== text) element.textContent = text;
}

// A line that says how something went: level is "good", "warn", "bad" or nothing.
export function tell(element, text, level = "") {
  element.dataset.level = level;
  setText(element, text);
}

export function bar(color, from, share) {
  const inner = make("i");
  inner.style.marginLeft = `${(from * 100).toFixed(2)}%`;
  inner.style.width = `${(Math.max(0, Math.min(share, 1 - from)) * 100).toFixed(2)}%`;
  return make("span", { class: "bar", "data-color": color }, inner);
}
