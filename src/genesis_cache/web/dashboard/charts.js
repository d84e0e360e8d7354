// Charts over time, drawn by uPlot: stacked areas and lines, with the newest figures, or those at the pointer, in words below.

import { byId, fill, make, setText } from "./dom.js";
import { clock } from "./format.js";
import { t } from "./words.js";

const AXIS_PX = 46;
const GAP_PX = 26;
const together = uPlot.sync("genesis");

const probe = make("i", { hidden: true });
document.body.append(probe);

// A colour of the theme as a canvas takes it.
function colorOf(name) {
  probe.style.color = `var(--${name})`;
  return getComputedStyle(probe).color;
}

export class Chart {
  // kind: "stacked" or "lines"; shown: how a figure is written; empty: the word for a chart without figures.
  constructor(id, { kind, shown, empty, isLog = false, title = null }) {
    this.host = byId(id);
    this.kind = kind;
    this.shown = shown;
    this.empty = empty;
    this.isLog = isLog;
    this.title = title;
    this.plot = null;
    this.shape = "";
    this.series = [];
    this.pointer = null;
    this.heading = title === null ? null : make("h3");
    this.box = make("div", { class: "plot", role: "img" });
    this.legend = make("dl", { class: "keys-of-chart" });
    this.nothing = make("p", { class: "nothing", hidden: true });
    this.host.append(...[this.heading, this.box, this.legend, this.nothing].filter(Boolean));
    new ResizeObserver(() => this.#fit()).observe(this.box);
  }

  // series: [{name, label, color, values, dashed}], the same times for all.
  show(times, span, series) {
    this.series = series;
    this.times = times;
    const shape = JSON.stringify([series.map(({ name, dashed }) => [name, dashed]), document.documentElement.dataset.theme, document.documentElement.lang]);
    if (shape !== this.shape) {
      this.plot?.destroy();
      this.plot = null;
      this.shape = shape;
    }
    const columns = this.kind === "stacked" ? stacked(series) : series.map(({ values }) => values.map((value) => (this.isLog && value === 0 ? null : value)));
    const hasFigures = series.some(({ values }) => values.some((value) => value));
    const end = times[times.length - 1] ?? Date.now() / 1000;
    this.range = [end - span, end];
    this.#draw([times, ...(this.kind === "stacked" ? columns.toReversed() : columns)]);
    this.nothing.hidden = hasFigures;
    setText(this.nothing, t(this.empty));
    if (this.heading) setText(this.heading, t(this.title));
    this.#tellLegend();
    const told = series.map(({ label, values }) => `${label} ${this.shown(values[values.length - 1] ?? null)}`).join(", ");
    this.box.setAttribute("aria-label", hasFigures ? told : t(this.empty));
  }

  #draw(data) {
    if (this.plot === null) {
      if (!this.box.clientWidth) return;
      this.plot = new uPlot(this.#options(), data, this.box);
    } else {
      this.plot.setData(data);
    }
  }

  #options() {
    const drawn = this.kind === "stacked" ? this.series.toReversed() : this.series;
    const axis = { stroke: colorOf("quiet"), font: "11px Inter, system-ui, sans-serif", ticks: { show: false }, grid: { stroke: colorOf("line"), width: 1 } };
    return {
      width: this.box.clientWidth,
      height: this.box.clientHeight,
      padding: [6, 24, 0, 0],
      legend: { show: false },
      cursor: { sync: { key: together.key }, drag: { x: false, y: false }, points: { show: this.kind === "lines", size: 6 } },
      scales: {
        x: { range: () => this.range },
        y: this.isLog ? { distr: 3, range: (_, low, high) => decades(low, high) } : { range: (_, low, high) => [0, Math.max(high ?? 0, 1) * 1.06] },
      },
      axes: [
        { ...axis, size: GAP_PX, space: 80, grid: { show: false }, values: (_, ticks) => ticks.map((tick) => clock(tick * 1000, { seconds: this.range[1] - this.range[0] < 120 })) },
        { ...axis, size: AXIS_PX, gap: 4, ...(this.isLog ? { space: 0, filter: wholeDecades, grid: { ...axis.grid, filter: wholeDecades } } : { space: 32 }), values: (_, ticks) => ticks.map((tick) => (tick === null ? "" : this.shown(tick))) },
      ],
      series: [{}, ...drawn.map(({ color, dashed }) => this.kind === "stacked"
        ? { fill: colorOf(`${color}-fill`), stroke: colorOf(color), width: 1.25, points: { show: false } }
        : { stroke: colorOf(color), width: 1.5, dash: dashed ? [4, 4] : [], spanGaps: true, points: { show: false } })],
      hooks: { setCursor: [(plot) => { this.pointer = plot.cursor.idx ?? null; this.#tellLegend(); }] },
    };
  }

  #tellLegend() {
    const rows = this.series.map(({ label, color, values, dashed }) => {
      const value = this.pointer === null ? newestOf(values) : values[this.pointer] ?? null;
      return make("div", {}, make("dt", { class: "swatch", "data-color": color, "data-line": dashed ? "dashed" : null }, label), make("dd", {}, value === null ? "–" : this.shown(value)));
    });
    fill(this.legend, rows);
  }

  #fit() {
    if (this.plot === null) return;
    this.plot.setSize({ width: this.box.clientWidth, height: this.box.clientHeight });
  }
}

function newestOf(values) {
  const last = values.slice(-15);
  for (let place = last.length - 1; place >= 0; place -= 1) if (last[place] !== null) return last[place];
  return null;
}

// Each column on top of those before it.
function stacked(series) {
  const below = new Array(series[0]?.values.length ?? 0).fill(0);
  return series.map(({ values }) => values.map((value, place) => (below[place] += value ?? 0)));
}

// Of the places that a logarithmic axis has, those of whole powers of ten, and no more of them than can be read.
function wholeDecades(_, places) {
  const whole = places.map((place) => (place > 0 && Math.abs(Math.log10(place) - Math.round(Math.log10(place))) < 1e-6 ? place : null));
  const every = Math.ceil(whole.filter(Boolean).length / 7);
  let met = 0;
  return whole.map((place) => (place !== null && met++ % every === 0 ? place : null));
}

// Whole powers of ten around what is shown.
function decades(low, high) {
  if (low === null || high === null || !(low > 0)) return [0.001, 10];
  const bottom = 10 ** Math.floor(Math.log10(low));
  return [bottom, Math.max(10 ** Math.ceil(Math.log10(high)), bottom * 10)];
}
