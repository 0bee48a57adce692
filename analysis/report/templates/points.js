// Checkpoints as markers, one trace per variant, and the card that tells which checkpoint is under the pointer.
const POINT_FIELDS = [
  ["learning rate", (p, i) => number(p.lr[i])],
  ["seed", (p, i) => p.seed[i]], ["step", (p, i) => p.step[i]],
  ["KL (nats)", (p, i) => withError(p.kl[i], p.kl_se[i])],
  ["gold (SD)", (p, i) => withError(p.gold[i], p.gold_se[i])],
  ["win rate", (p, i) => withError(p.win_rate[i], p.win_rate_se[i])],
];

function pointIndices(variant, keep = () => true) {
  const { points } = sweep();
  return points.variant.flatMap((owner, i) => (owner === variant && keep(points, i) ? [i] : []));
}

function pointsTrace(variant, indices, xs, ys, size = 7) {
  const { points } = sweep();
  const opacity = indices.map((i) => {
    if (state.strength !== null) return points.strength[i] === state.strength ? 1 : 0.07;
    return points.final[i] === 1 ? 0.75 : 0.3;
  });
  return {
    type: "scatter", mode: "markers", x: indices.map((i) => xs(points, i)), y: indices.map((i) => ys(points, i)),
    customdata: indices, hoverinfo: "none", name: DATA.variants[variant].name,
    marker: { color: color(variant), symbol: DATA.variants[variant].symbol, size, opacity, line: { width: 0.6, color: variable("--panel") } },
  };
}

function fillCard(card, index) {
  const { points, hover_prompts: prompts } = sweep();
  const list = element("dl");
  const strength = [sweep().strength_name, (p, i) => number(p.strength[i])];
  for (const [name, value] of [strength, ...POINT_FIELDS]) list.append(element("dt", {}, name), element("dd", {}, value(points, index)));
  card.replaceChildren(element("h3", {}, DATA.variants[points.variant[index]].label), list);
  for (const [k, prompt] of prompts.entries()) {
    const response = points.texts[k][index];
    if (response === null) continue;
    const quote = element("blockquote");
    quote.append(element("span", { class: "quiet" }, DATA.texts[prompt]), element("span", {}, DATA.texts[response]));
    card.append(quote);
  }
}

function showCard(index, x, y) {
  const card = byId("card");
  fillCard(card, index);
  card.hidden = false;
  const { width, height } = card.getBoundingClientRect();
  const left = x + 18 + width > innerWidth ? x - 18 - width : x + 18;
  card.style.left = `${Math.max(8, Math.min(left, innerWidth - width - 8))}px`;
  card.style.top = `${Math.max(8, Math.min(y - 20, innerHeight - height - 8))}px`;
}

// The clicked point's files, which lie beside the report, and its samples where the browser below has them.
function showLinks(index) {
  const { points, cell_names: names, folder, samples } = sweep();
  const name = names[points.cell[index]];
  const line = byId("point-links");
  line.replaceChildren(`${name}, step ${points.step[index]}: `);
  const links = folder === null ? [] : ["config.yaml", "records.jsonl", "samples.parquet"];
  for (const file of links) {
    line.append(element("a", { href: `${folder}/${encodeURIComponent(name)}/${file}` }, file), " · ");
  }
  const place = samples.findIndex((cell) => cell.name === name);
  if (place < 0) return line.append("its samples are not among those below");
  const link = element("a", { href: "#samples" }, "samples");
  link.addEventListener("click", () => {
    byId("cell").value = place;
    showSamples();
  });
  line.append(link);
}

// Hover, click to isolate, and arrow keys that walk the visible checkpoints from left to right.
function makeInteractive(plot) {
  plot.on("plotly_hover", ({ points: [point], event }) => {
    if (point?.customdata !== undefined) showCard(point.customdata, event.clientX, event.clientY);
  });
  plot.on("plotly_unhover", () => (byId("card").hidden = true));
  plot.on("plotly_click", ({ points: [point] }) => {
    if (point?.customdata === undefined) return;
    showLinks(point.customdata);
    isolate(sweep().points.variant[point.customdata]);
  });
  plot.addEventListener("blur", () => (byId("card").hidden = true));
  plot.addEventListener("keydown", (event) => {
    const move = { ArrowRight: 1, ArrowDown: 1, ArrowLeft: -1, ArrowUp: -1 }[event.key];
    if (move === undefined) return;
    event.preventDefault();
    const visible = plot.data.flatMap((t) => (t.customdata ?? []).map((index, k) => ({ index, x: t.x[k], y: t.y[k] })));
    visible.sort((a, b) => a.x - b.x);
    if (!visible.length) return;
    const last = visible.findIndex((point) => String(point.index) === plot.dataset.cursor);
    const next = visible[(last + move + visible.length) % visible.length];
    plot.dataset.cursor = next.index;
    markPoint(plot, next);
    const box = plot.getBoundingClientRect();
    showCard(next.index, box.left + 50, box.top + 30);
    byId("announcer").textContent = byId("card").textContent;
  });
}

// An arrow at the point; Plotly wants an annotation on a log axis to be placed by its logarithm.
function markPoint(plot, { x, y }) {
  const place = (name, value) => (plot.layout[name].type === "log" ? Math.log10(value) : value);
  const arrow = { x: place("xaxis", x), y: place("yaxis", y), text: "", arrowcolor: variable("--text"), ax: 0, ay: -26 };
  Plotly.relayout(plot, { annotations: [arrow] });
}

function isolate(variant) {
  update({ isolated: state.isolated === variant ? null : variant });
}
