// Figures as a person reads them, in the page's language.

import { state } from "./state.js";

const STEP = 1024; // a MB is 2^20 bytes, as in the settings

export function number(value, digits = 0) {
  return value.toLocaleString(state.get("language"), { minimumFractionDigits: digits, maximumFractionDigits: digits });
}

// A count or a rate: as much of it as a person takes in, with k, M, G from a thousand on.
export function short(value) {
  if (value === null || value === undefined) return "–";
  const units = ["", "k", "M", "G", "T"];
  let unit = 0;
  while (Math.abs(value) >= 999.5 && unit < units.length - 1) { value /= 1000; unit += 1; }
  const size = Math.abs(value);
  const digits = unit === 0 ? (Number.isInteger(value) || size >= 9.95 ? 0 : 1) : size >= 99.95 ? 0 : size >= 9.995 ? 1 : 2;
  return number(value, digits) + units[unit];
}

export const percent = (share, digits = 1) => `${number(share * 100, digits)} %`;

export function size(bytes) {
  const units = ["B", "KB", "MB", "GB", "TB"];
  let unit = 0;
  while (bytes >= STEP && unit < units.length - 1) { bytes /= STEP; unit += 1; }
  return `${number(bytes, unit === 0 || bytes >= 99.95 ? 0 : 1)} ${units[unit]}`;
}

// A length of time that was waited: from nanoseconds to seconds.
export function wait(ms) {
  if (ms === null || ms === undefined) return "–";
  if (ms === 0) return "0";
  const [value, unit] = ms < 0.001 ? [ms * 1e6, "ns"] : ms < 1 ? [ms * 1e3, "µs"] : ms < 1000 ? [ms, "ms"] : [ms / 1000, "s"];
  return `${number(value, value >= 99.95 ? 0 : value >= 9.995 ? 1 : 2)} ${unit}`;
}

// A length of time that something lasts: the two largest units.
export function lapse(seconds) {
  if (seconds === null || seconds === undefined) return "–";
  const whole = Math.abs(Math.round(seconds));
  const parts = [[Math.floor(whole / 86400), "d"], [Math.floor(whole / 3600) % 24, "h"], [Math.floor(whole / 60) % 60, "min"], [whole % 60, "s"]];
  const told = parts.filter(([amount]) => amount).slice(0, 2).map(([amount, unit]) => `${amount} ${unit}`);
  return (seconds < 0 ? "−" : "") + (told.join(" ") || "0 s");
}

export function clock(ms, { seconds = true } = {}) {
  const wanted = { hour: "2-digit", minute: "2-digit", hourCycle: "h23", ...(seconds ? { second: "2-digit" } : {}) };
  return new Date(ms).toLocaleTimeString(state.get("language"), wanted);
}
