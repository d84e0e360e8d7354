// The table of levels, fetched again every second.
const columns = ["layer", "tier", "entries", "size_bytes", "capacity_bytes", "hits", "misses", "hit_ratio", "p50_ms", "p99_ms", "up"];
const table = document.getElementById("levels");
const state = document.getElementById("state");

function shown(value) {
  if (value === null || value === undefined) return "-";
  if (typeof value === "boolean") return value ? "yes" : "no";
  return typeof value === "number" ? value.toLocaleString("en", { maximumSignificantDigits: 4 }) : String(value);
}

async function refresh() {
  try {
    const answer = await fetch("levels", { cache: "no-store" });
    if (!answer.ok) throw new Error(`the server answered ${answer.status}`);
    const { levels } = await answer.json();
    table.replaceChildren(...levels.map((level) => {
      const row = document.createElement("tr");
      for (const column of columns) row.insertCell().textContent = shown(level[column]);
      return row;
    }));
    state.textContent = `As of ${new Date().toLocaleTimeString()}.`;
  } catch (error) {
    state.textContent = `No figures: ${error.message}.`;
  }
}

refresh();
setInterval(refresh, 1000);
