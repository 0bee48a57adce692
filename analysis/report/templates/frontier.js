// The frontier: gold (or win rate) against KL (or √KL), with each variant's smoothed curve and band.
const xValue = (kl) => (state.x === "kl" ? kl : Math.sqrt(Math.max(kl, 0)));
const Y_TITLES = { gold: "gold reward, SD of π_ref", win_rate: "win rate against π_ref" };

function bandTraces(variant, curve, scale = xValue) {
  const x = curve.kl.map(scale);
  const dimmed = state.strength === null ? 1 : 0.35;
  const common = { type: "scatter", mode: "lines", hoverinfo: "skip", name: DATA.variants[variant].name };
  return [
    {
      ...common, x: [...x, ...[...x].reverse()], y: [...curve.gold_high, ...[...curve.gold_low].reverse()],
      fill: "toself", fillcolor: faded(variant, 0.13 * dimmed), line: { width: 0 },
    },
    { ...common, x, y: curve.gold, line: { color: faded(variant, dimmed), width: 2.4 } },
  ];
}

function referenceTraces() {
  if (state.y !== "gold") return [];
  return sweep().reference_lines.map(({ name, dash, kl, gold }) => ({
    type: "scatter", mode: "lines", x: kl.map(xValue), y: gold, hoverinfo: "skip", name,
    line: { color: variable("--reference"), dash, width: 1.6 },
  }));
}

function referenceLabels() {
  if (state.y !== "gold") return [];
  const lines = sweep().reference_lines;
  const highest = Math.max(...lines.map(({ gold }) => gold.at(-1)));
  const side = (kl) => (xValue(kl) < xValue(shownKl()) / 2 ? "left" : "right"); // where there is room
  return lines.map(({ name, kl, gold }) => ({
    x: xValue(kl.at(-1)), y: gold.at(-1), text: name, showarrow: false, xanchor: side(kl.at(-1)),
    yanchor: gold.at(-1) === highest ? "bottom" : "top", xshift: side(kl.at(-1)) === "left" ? 4 : -4, bgcolor: variable("--panel"), opacity: 0.9,
    font: { size: 11.5, color: variable("--reference") },
  }));
}

// How many checkpoints the axis leaves out, said where they would be.
function beyondLabel(keep) {
  const { points } = sweep();
  const end = shownKl();
  const beyond = points.kl.filter((kl, i) => xValue(kl) > xValue(end) * 1.04 && keep(points, i) && isShown(points.variant[i]));
  if (!beyond.length) return [];
  const text = `${beyond.length} beyond, up to KL ${number(Math.max(...beyond))} →<br>(double-click shows all)`;
  return [{ x: 1, y: 0.99, xref: "paper", yref: "paper", xanchor: "right", yanchor: "top", align: "right", text, showarrow: false,
    bgcolor: variable("--panel"), opacity: 0.9, font: { size: 11.5, color: variable("--quiet") } }];
}

// Each seed's trained policies, joined in the order of their KL: how far runs of one variant lie apart.
function seedTraces(variant) {
  const { points } = sweep();
  const final = pointIndices(variant, (p, i) => p.final[i] === 1);
  return [...new Set(final.map((i) => points.seed[i]))].map((seed) => {
    const own = final.filter((i) => points.seed[i] === seed).sort((a, b) => points.kl[a] - points.kl[b]);
    return {
      type: "scatter", mode: "lines", hoverinfo: "skip", name: DATA.variants[variant].name,
      x: own.map((i) => xValue(points.kl[i])), y: own.map((i) => points[state.y][i]),
      line: { color: faded(variant, 0.45), width: 1 },
    };
  });
}

// Room for points and lines; a band that is wide because few seeds reach so far may leave the plot.
function yRange(traces) {
  const shown = traces.filter((trace) => trace.fill === undefined).flatMap((trace) => trace.y);
  const low = shown.reduce((a, b) => Math.min(a, b), 0);
  const high = shown.reduce((a, b) => Math.max(a, b), 0);
  const margin = 0.06 * (high - low || 1);
  return [low - margin, high + margin];
}

function drawFrontier() {
  const { curves } = sweep();
  const keep = (p, i) => state.checkpoints === "all" || p.final[i] === 1;
  const traces = referenceTraces();
  for (const variant of DATA.variants.keys()) {
    if (!isShown(variant)) continue;
    const curve = curves[variant];
    const size = curve ? 7 : 11; // a policy that no line leads to would be overlooked
    traces.push(pointsTrace(variant, pointIndices(variant, keep), (p, i) => xValue(p.kl[i]), (p, i) => p[state.y][i], size));
    if (state.lines === "seeds") traces.push(...seedTraces(variant));
    else if (curve && state.y === "gold") traces.push(...bandTraces(variant, curve));
  }
  const kl = state.x === "sqrt" ? sqrtKlAxis("frontier-plot") : axis("KL, nats per sequence", { range: [0, shownKl() * 1.04] });
  const figure = layout(kl, axis(Y_TITLES[state.y], { range: yRange(traces) }));
  return draw("frontier-plot", traces, { ...figure, annotations: [...referenceLabels(), ...beyondLabel(keep)] });
}

function setUpFrontier() {
  for (const name of ["x", "y", "checkpoints", "lines"]) {
    for (const input of document.querySelectorAll(`input[name="${name}"]`)) {
      input.addEventListener("change", () => update({ [name]: input.value }));
    }
  }
  const slider = byId("strength");
  slider.addEventListener("input", () => {
    const index = Number(slider.value);
    update({ strength: index === 0 ? null : sweep().strengths[index - 1] });
  });
  redraws.push(() => {
    slider.max = sweep().strengths.length;
    slider.value = sweep().strengths.indexOf(state.strength) + 1;
    const text = state.strength === null ? `all ${sweep().strength_name}` : `${sweep().strength_name} = ${number(state.strength)}`;
    byId("strength-name").textContent = sweep().strength_name;
    byId("strength-value").textContent = text;
    slider.setAttribute("aria-valuetext", text);
  });
  registerPlot("frontier-plot", drawFrontier);
}
