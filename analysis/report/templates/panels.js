// The other plots: gold and KL against strength, over-optimization, regularization, health.
function errorBar(value, low, high, extra) {
  return {
    type: "data", symmetric: false, thickness: 1, width: 0, ...extra,
    array: value.map((v, i) => (high[i] === null ? 0 : high[i] - v)),
    arrayminus: value.map((v, i) => (low[i] === null ? 0 : v - low[i])),
  };
}

function betaTrace(variant, quantity) {
  const cells = sweep().cells[variant];
  if (!cells) return [];
  const value = cells[quantity];
  return [{
    type: "scatter", mode: "lines+markers", x: cells.strength, y: value, name: DATA.variants[variant].name,
    line: { color: color(variant), width: 1.6 }, marker: { symbol: DATA.variants[variant].symbol, size: 7 },
    error_y: errorBar(value, cells[`${quantity}_low`], cells[`${quantity}_high`], { color: faded(variant, 0.65) }),
    hovertemplate: `${plain(DATA.variants[variant].name)}<br>${plain(sweep().strength_name)} = %{x:.3g}<br>%{y:.3g}<extra></extra>`,
  }];
}

// A peak with its interval along x; where the interval leaves the grid, its end is not known and no bar is drawn.
function peakTrace(variant, x, low, high, y, what, scale = (value) => value) {
  const [at, from, to] = [x, low, high].map((value) => (value === null ? null : scale(value)));
  return {
    type: "scatter", mode: "markers", x: [at], y: [y], name: DATA.variants[variant].name,
    marker: { symbol: DATA.variants[variant].symbol, size: 14, color: color(variant), line: { width: 2, color: variable("--text") } },
    error_x: errorBar([at], [from], [to], { thickness: 2, width: 5, color: color(variant) }),
    hovertemplate: `${plain(DATA.variants[variant].name)}<br>${what} ${number(x)} [${number(low)}, ${number(high)}]<extra></extra>`,
  };
}

function optimumTrace(variant) {
  const best = sweep().optimal_beta[variant];
  return best ? [peakTrace(variant, best.peak_beta, best.peak_beta_low, best.peak_beta_high, best.peak_gold, `optimal ${sweep().strength_name}`)] : [];
}

const shownVariants = () => [...DATA.variants.keys()].filter(isShown);

function drawGoldBeta() {
  const traces = [...shownVariants().flatMap((variant) => betaTrace(variant, "gold")), ...shownVariants().flatMap(optimumTrace)];
  draw("gold-beta-plot", traces, layout(logAxis(sweep().strength_name), axis("gold reward, SD of π_ref")));
}

function drawKlBeta() {
  const traces = shownVariants().flatMap((variant) => betaTrace(variant, "kl"));
  draw("kl-beta-plot", traces, layout(logAxis(sweep().strength_name), logAxis("KL, nats per sequence")));
}

// Over-optimization: the chosen form of every variant, its peak, and the checkpoints behind it.
function drawFits() {
  const traces = [];
  for (const variant of shownVariants()) {
    const fit = sweep().fits[variant];
    const peak = sweep().peaks[variant];
    const line = { color: color(variant), width: 2.2 };
    traces.push(pointsTrace(variant, pointIndices(variant), sqrtKl, (p, i) => p.gold[i], 5));
    if (fit) traces.push({ type: "scatter", mode: "lines", x: fit.kl.map(Math.sqrt), y: fit.gold, hoverinfo: "skip", name: DATA.variants[variant].name, line });
    if (peak) traces.push(peakTrace(variant, peak.kl_peak, peak.kl_peak_low, peak.kl_peak_high, peak.gold_peak, "peak at KL", Math.sqrt));
  }
  draw("fits-plot", traces, layout(sqrtKlAxis("fits-plot"), axis("gold reward, SD of π_ref")));
}

const kl = (p, i) => p.kl[i];
const moved = (p, i) => p.kl[i] > 0 && p.rho_sq[i] > 0;
const sqrtKl = (p, i) => Math.sqrt(Math.max(p.kl[i], 0));
const fromZero = (title) => axis(title, { rangemode: "tozero" });
const PANELS = {
  "regularization-plot": { keep: moved, x: (p, i) => p.rho_sq[i], y: kl, axes: () => [logAxis("E[ρ²] on held-out pairs, nats²"), logAxis("KL, nats per sequence")] },
  "length-plot": { x: sqrtKl, y: (p, i) => p.response_tokens[i], axes: (id) => [sqrtKlAxis(id), fromZero("tokens")] },
  "eos-plot": { x: sqrtKl, y: (p, i) => p.eos_rate[i], axes: (id) => [sqrtKlAxis(id), fromZero("share of responses")] },
  "distinct-plot": { x: sqrtKl, y: (p, i) => p.distinct_2[i], axes: (id) => [sqrtKlAxis(id), fromZero("share of bigrams")] },
};

function setUpPanels() {
  registerPlot("gold-beta-plot", drawGoldBeta);
  registerPlot("kl-beta-plot", drawKlBeta);
  registerPlot("fits-plot", drawFits);
  for (const [id, { keep, x, y, axes }] of Object.entries(PANELS)) {
    registerPlot(id, () => draw(id, shownVariants().map((variant) => pointsTrace(variant, pointIndices(variant, keep), x, y, 6)), layout(...axes(id))));
  }
  // Side by side: every view's curves on common axes.
  DATA.sweeps.forEach((view, k) => {
    const id = `side-plot-${k}`;
    if (byId(id)) registerPlot(id, () => drawSide(id, view));
  });
}

function drawSide(id, view) {
  const curves = DATA.sweeps.flatMap((other) => Object.values(other.curves));
  const highest = Math.max(...curves.flatMap((curve) => curve.kl));
  const golds = curves.flatMap((curve) => [...curve.gold_low, ...curve.gold_high]).filter((value) => value !== null);
  const traces = shownVariants().filter((variant) => view.curves[variant]).flatMap((variant) => bandTraces(variant, view.curves[variant], Math.sqrt));
  draw(id, traces, layout(sqrtKlAxis(id, highest), axis("gold reward, SD of π_ref", { range: [Math.min(...golds), Math.max(...golds)] })));
}
