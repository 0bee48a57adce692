// The other plots: gold and KL against β, over-optimization, regularization, health.
function errorBar(value, low, high, extra) {
  return {
    type: "data", symmetric: false, thickness: 1, width: 0, ...extra,
    array: value.map((v, i) => (high[i] === null ? 0 : high[i] - v)),
    arrayminus: value.map((v, i) => (low[i] === null ? 0 : v - low[i])),
  };
}

function betaTrace(loss, quantity) {
  const cells = sweep().cells[loss];
  if (!cells) return [];
  const value = cells[quantity];
  return [{
    type: "scatter", mode: "lines+markers", x: cells.beta, y: value, name: DATA.losses[loss].name,
    line: { color: color(loss), width: 1.6 }, marker: { symbol: DATA.losses[loss].symbol, size: 7 },
    error_y: errorBar(value, cells[`${quantity}_low`], cells[`${quantity}_high`], { color: faded(loss, 0.65) }),
    hovertemplate: `${plain(DATA.losses[loss].name)}<br>β = %{x:.3g}<br>%{y:.3g}<extra></extra>`,
  }];
}

// A peak with its interval along x; where the interval leaves the grid, its end is not known and no bar is drawn.
function peakTrace(loss, x, low, high, y, what, scale = (value) => value) {
  const [at, from, to] = [x, low, high].map((value) => (value === null ? null : scale(value)));
  return {
    type: "scatter", mode: "markers", x: [at], y: [y], name: DATA.losses[loss].name,
    marker: { symbol: DATA.losses[loss].symbol, size: 14, color: color(loss), line: { width: 2, color: variable("--text") } },
    error_x: errorBar([at], [from], [to], { thickness: 2, width: 5, color: color(loss) }),
    hovertemplate: `${plain(DATA.losses[loss].name)}<br>${what} ${number(x)} [${number(low)}, ${number(high)}]<extra></extra>`,
  };
}

function optimumTrace(loss) {
  const best = sweep().optimal_beta[loss];
  return best ? [peakTrace(loss, best.peak_beta, best.peak_beta_low, best.peak_beta_high, best.peak_gold, "optimal β")] : [];
}

const shownLosses = () => [...DATA.losses.keys()].filter(isShown);

function drawGoldBeta() {
  const traces = [...shownLosses().flatMap((loss) => betaTrace(loss, "gold")), ...shownLosses().flatMap(optimumTrace)];
  draw("gold-beta-plot", traces, layout(logAxis("β"), axis("gold reward, SD of π_ref")));
}

function drawKlBeta() {
  const traces = shownLosses().flatMap((loss) => betaTrace(loss, "kl"));
  draw("kl-beta-plot", traces, layout(logAxis("β"), logAxis("KL, nats per sequence")));
}

// Over-optimization: the chosen form of every loss, its peak, and the checkpoints behind it.
function drawFits() {
  const traces = [];
  for (const loss of shownLosses()) {
    const fit = sweep().fits[loss];
    const peak = sweep().peaks[loss];
    const line = { color: color(loss), width: 2.2 };
    traces.push(pointsTrace(loss, pointIndices(loss), sqrtKl, (p, i) => p.gold[i], 5));
    if (fit) traces.push({ type: "scatter", mode: "lines", x: fit.kl.map(Math.sqrt), y: fit.gold, hoverinfo: "skip", name: DATA.losses[loss].name, line });
    if (peak) traces.push(peakTrace(loss, peak.kl_peak, peak.kl_peak_low, peak.kl_peak_high, peak.gold_peak, "peak at KL", Math.sqrt));
  }
  draw("fits-plot", traces, layout(sqrtKlAxis(), axis("gold reward, SD of π_ref")));
}

const kl = (p, i) => p.kl[i];
const moved = (p, i) => p.kl[i] > 0 && p.rho_sq[i] > 0;
const sqrtKl = (p, i) => Math.sqrt(Math.max(p.kl[i], 0));
const fromZero = (title) => axis(title, { rangemode: "tozero" });
const PANELS = {
  "regularization-plot": { keep: moved, x: (p, i) => p.rho_sq[i], y: kl, axes: () => [logAxis("E[ρ²] on held-out pairs, nats²"), logAxis("KL, nats per sequence")] },
  "length-plot": { x: sqrtKl, y: (p, i) => p.response_tokens[i], axes: () => [sqrtKlAxis(), fromZero("tokens")] },
  "eos-plot": { x: sqrtKl, y: (p, i) => p.eos_rate[i], axes: () => [sqrtKlAxis(), fromZero("share of responses")] },
  "distinct-plot": { x: sqrtKl, y: (p, i) => p.distinct_2[i], axes: () => [sqrtKlAxis(), fromZero("share of bigrams")] },
};

function setUpPanels() {
  registerPlot("gold-beta-plot", drawGoldBeta);
  registerPlot("kl-beta-plot", drawKlBeta);
  registerPlot("fits-plot", drawFits);
  for (const [id, { keep, x, y, axes }] of Object.entries(PANELS)) {
    registerPlot(id, () => draw(id, shownLosses().map((loss) => pointsTrace(loss, pointIndices(loss, keep), x, y, 6)), layout(...axes())));
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
  const traces = shownLosses().filter((loss) => view.curves[loss]).flatMap((loss) => bandTraces(loss, view.curves[loss], Math.sqrt));
  draw(id, traces, layout(sqrtKlAxis(highest), axis("gold reward, SD of π_ref", { range: [Math.min(...golds), Math.max(...golds)] })));
}
