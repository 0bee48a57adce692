// State shared by all plots, theme, and small DOM helpers. Text enters the page through textContent only.
const DATA = JSON.parse(document.getElementById("report-data").textContent);
const state = { sweep: 0, isolated: null, x: "sqrt", y: "gold", checkpoints: "all", lines: "smooth", strength: null, training: 0 };
const redraws = [];


const byId = (id) => document.getElementById(id);
const sweep = () => DATA.sweeps[state.sweep];
const isDark = () => document.documentElement.dataset.theme === "dark";
const color = (variant) => (isDark() ? DATA.variants[variant].dark : DATA.variants[variant].light);
const variable = (name) => getComputedStyle(document.documentElement).getPropertyValue(name).trim();
const isShown = (variant) => state.isolated === null || state.isolated === variant;

function element(tag, attributes = {}, ...children) {
  const node = document.createElement(tag);
  for (const [name, value] of Object.entries(attributes)) node.setAttribute(name, value);
  node.append(...children.map(String));
  return node;
}

function update(change) {
  Object.assign(state, change);
  redraws.forEach((redraw) => redraw());
}

function number(value, digits = 3) {
  if (value === null || value === undefined) return "–";
  const size = Math.abs(value);
  if (size !== 0 && (size >= 1e5 || size < 1e-4)) return value.toExponential(1).replace("-", "−");
  return String(Number(value.toPrecision(digits))).replace("-", "−");
}

function withError(value, error) {
  if (value === null) return "–";
  const digits = error ? Math.min(6, Math.max(0, 1 - Math.floor(Math.log10(error)))) : 3;
  const text = value.toFixed(digits) + (error ? ` ± ${error.toFixed(digits)}` : "");
  return text.replace("-", "−");
}

function setTheme(dark) {
  document.documentElement.dataset.theme = dark ? "dark" : "light";
  byId("theme").textContent = dark ? "Light theme" : "Dark theme";
  update({});
}

// Plotly renders tags in hover labels; a user's own variant may have any name.
const plain = (text) => text.replaceAll("&", "&amp;").replaceAll("<", "&lt;").replaceAll(">", "&gt;");

// The color of a variant with opacity, for bands.
function faded(variant, opacity) {
  const value = parseInt(color(variant).slice(1), 16);
  return `rgba(${value >> 16}, ${(value >> 8) & 255}, ${value & 255}, ${opacity})`;
}

// A phone has no room for a title that says everything, nor for labels beside a line's end.
const isNarrow = () => innerWidth < 500;

function axis(title, extra = {}) {
  const text = isNarrow() ? title.replace(", nats per sequence", " (nats)").replace(", SD of π_ref", " (SD)") : title;
  return {
    title: { text, standoff: 8, font: { size: isNarrow() ? 11.5 : 13 } }, gridcolor: variable("--grid"), linecolor: variable("--line"),
    zeroline: false, ticks: "outside", tickcolor: variable("--line"), ticklen: 4, automargin: true, ...extra,
  };
}

function layout(xaxis, yaxis, extra = {}) {
  return {
    xaxis, yaxis, showlegend: false, hovermode: "closest", margin: { l: 56, r: 12, t: 10, b: 48 },
    paper_bgcolor: "rgba(0,0,0,0)", plot_bgcolor: "rgba(0,0,0,0)",
    font: { family: variable("--sans"), size: 13, color: variable("--text") },
    dragmode: matchMedia("(pointer: coarse)").matches ? false : "zoom", ...extra,
  };
}

// Plots are drawn when they come near the window: a click then redraws two or three, not all.
const near = new IntersectionObserver(
  (entries) => entries.forEach(({ target, isIntersecting }) => {
    target.near = isIntersecting;
    if (isIntersecting && target.stale) target.redraw();
  }),
  { rootMargin: "300px" },
);

function registerPlot(id, render) {
  const plot = byId(id);
  plot.redraw = () => {
    plot.stale = false;
    render();
    if (!plot.interactive) makeInteractive(plot);
    plot.interactive = true;
  };
  redraws.push(() => {
    plot.stale = true;
    if (plot.near) plot.redraw();
  });
  near.observe(plot);
}

function draw(id, traces, figureLayout) {
  const config = { displayModeBar: false, responsive: true, doubleClick: "reset+autosize" };
  return Plotly.react(byId(id), traces, figureLayout, config);
}

// Where KL axes end: a few policies far beyond every curve would press all others into a corner. Double-click shows them.
function shownKl() {
  const { points, curves } = sweep();
  const all = points.kl.reduce((a, b) => Math.max(a, b), 0);
  const ends = Object.values(curves).map((curve) => curve.kl.at(-1));
  const end = 1.15 * Math.max(...ends, 0);
  return ends.length && all > 1.5 * end ? end : all;
}

// KL in nats on a √ scale: the steep beginning and the long tail of a frontier are both legible. Ticks that would touch
// in the plot of this id are left out.
function sqrtKlAxis(id, high = shownKl()) {
  const steps = [0.1, 0.5, 1, 2, 5, 10, 20, 50, 100, 200, 500, 1000];
  const wide = 30 / Math.max(byId(id).clientWidth - 70, 100);
  const shown = steps.reduce((kept, v) => (Math.sqrt(v / high) - Math.sqrt(kept.at(-1) / high) < wide ? kept : [...kept, v]), [0]);
  return axis("KL, nats per sequence (√ scale)", { tickvals: shown.map(Math.sqrt), ticktext: shown.map(String), tickangle: 0, range: [0, Math.sqrt(high) * 1.04] });
}

// Decade ticks as plain numbers; Plotly's own labels on a log axis mix prefixes and bare digits.
function logAxis(title, extra = {}) {
  const decades = Array.from({ length: 13 }, (_, i) => 10 ** (i - 6));
  return axis(title, { type: "log", tickvals: decades, ticktext: decades.map((v) => number(v)), ...extra });
}
