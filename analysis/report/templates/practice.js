// Choosing a strength, residuals, length-controlled gold and implicit reward: one marker per variant and strength.
const practice = () => sweep().practice;

function drawChoosing() {
  const { rules = [], variants = {} } = practice()?.choosing ?? {};
  const shown = shownVariants().filter((variant) => variants[variant]);
  const traces = shown.map((variant, k) => {
    const { regret, regret_low: low, regret_high: high } = variants[variant];
    const name = plain(DATA.variants[variant].name);
    return {
      type: "scatter", mode: "markers", x: regret, y: rules.map((_, i) => i + 0.7 * ((k + 0.5) / shown.length - 0.5)), name: DATA.variants[variant].name,
      marker: { symbol: DATA.variants[variant].symbol, size: 7, color: color(variant) },
      error_x: errorBar(regret, low, high, { color: faded(variant, 0.65) }),
      text: rules.map((rule) => `${name}<br>${plain(rule)}`), hovertemplate: "%{text}<br>regret %{x:.3g} SD<extra></extra>",
    };
  });
  const labels = rules.map((rule) => plain(rule.replace("largest KL up to", "KL up to")));
  const y = axis("", { tickvals: rules.map((_, i) => i), ticktext: labels, range: [rules.length - 0.4, -0.6], tickfont: { size: isNarrow() ? 11 : 13 } });
  draw("choosing-plot", traces, layout(axis("regret in gold, SD of π_ref", { zeroline: true, zerolinecolor: variable("--reference") }), y));
}

// Values with intervals against KL or length, one trace per variant; `low` and `high` are names of columns.
function estimates(rows, x, quantity, look = {}) {
  return shownVariants().filter((variant) => rows?.[variant]).map((variant) => {
    const own = rows[variant];
    const { name, symbol } = DATA.variants[variant];
    const value = own[quantity];
    const bars = own[`${quantity}_low`] ? { error_y: errorBar(value, own[`${quantity}_low`], own[`${quantity}_high`], { color: faded(variant, 0.65) }) } : {};
    return {
      type: "scatter", mode: "markers", x: x(own), y: value, name, ...bars,
      marker: { symbol: symbol + (look.hollow ? "-open" : ""), size: 7, color: color(variant), opacity: look.hollow ? 0.6 : 1 },
      text: own.strength.map((strength) => `${plain(name)}<br>${plain(sweep().strength_name)} = ${number(strength)}`),
      hovertemplate: `%{text}<br>${look.hollow ? "raw " : ""}%{y:.3g}<extra></extra>`,
    };
  });
}

const rootKl = (own) => own.kl.map((kl) => Math.sqrt(Math.max(kl, 0)));
const zeroLine = () => ({ zeroline: true, zerolinecolor: variable("--reference") });

// A bar that few seeds make endless may leave the plot; the values themselves set its range.
function aroundValues(traces) {
  const values = traces.flatMap((trace) => trace.y).filter((value) => value !== null);
  const [low, high] = [Math.min(0, ...values), Math.max(0, ...values)];
  const margin = 0.15 * (high - low || 1);
  return [low - margin, high + margin];
}

function drawEstimates(id, traces, xAxis, title) {
  draw(id, traces, layout(xAxis, axis(title, { ...zeroLine(), range: aroundValues(traces) })));
}

function setUpPractice() {
  registerPlot("choosing-plot", drawChoosing);
  for (const line of ["frontier", "form"]) {
    const id = `residual-${line}-plot`;
    registerPlot(id, () => drawEstimates(id, estimates(practice()?.residuals[line], rootKl, "residual"), sqrtKlAxis(id), "residual, SD of π_ref"));
  }
  registerPlot("controlled-plot", () => {
    const rows = practice()?.length;
    const traces = [...estimates(rows, rootKl, "gold", { hollow: true }), ...estimates(rows, rootKl, "controlled")];
    drawEstimates("controlled-plot", traces, sqrtKlAxis("controlled-plot"), "gold reward, SD of π_ref");
  });
  registerPlot("implicit-plot", () =>
    drawEstimates("implicit-plot", estimates(practice()?.implicit, rootKl, "reward"), sqrtKlAxis("implicit-plot"), "implicit reward, nats"));
  registerPlot("implicit-length-plot", () =>
    drawEstimates("implicit-length-plot", estimates(practice()?.implicit, (own) => own.length, "reward"), axis("response length, tokens"), "implicit reward, nats"));
  // A plot inside closed details has no size; it is drawn when they open.
  for (const details of document.querySelectorAll("details.deep")) {
    details.addEventListener("toggle", () => details.open && details.querySelectorAll(".plot").forEach((plot) => plot.redraw()));
  }
}
