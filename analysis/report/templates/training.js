// Every step of one chosen cell's training.
const TRAINING_PLOTS = {
  "training-loss-plot": ["loss", "loss on the batch"],
  "training-rho-plot": ["rho", "margin ρ, nats"],
  "training-accuracy-plot": ["pair_accuracy", "share of pairs with ρ > 0"],
  "training-gradient-plot": ["grad_norm", "gradient norm before clipping"],
  "training-rate-plot": ["lr", "learning rate"],
};

function drawTraining(id, quantity, title) {
  const cell = sweep().training.cells[state.training];
  const line = { color: variable("--accent"), width: 1.8 };
  const values = cell?.[quantity] ?? [];
  const trace = { type: "scatter", mode: "lines", x: cell?.step ?? [], y: values, line, hovertemplate: "step %{x:.4g}<br>%{y:.4g}<extra></extra>" };
  const absent = { text: "not measured", showarrow: false, xref: "paper", yref: "paper", x: 0.5, y: 0.5 };
  const range = quantity === "pair_accuracy" ? { range: [0, 1.02] } : { exponentformat: "power" };
  const annotations = values.some((value) => value !== null) ? [] : [absent];
  draw(id, [trace], layout(axis("training step", { rangemode: "tozero" }), axis(title, range), { annotations }));
}

function setUpTraining() {
  const choice = byId("training-cell");
  let filled = null;
  redraws.push(() => {
    const { cells, note } = sweep().training;
    if (filled !== state.sweep) {
      filled = state.sweep;
      const names = cells.map(({ name, state: how }, i) => element("option", { value: i }, how === "done" ? name : `${name} (${how})`));
      choice.replaceChildren(...names);
      byId("training-note").textContent = note;
      byId("training-curves").hidden = choice.disabled = cells.length === 0;
    }
    choice.value = state.training;
  });
  choice.addEventListener("change", () => update({ training: Number(choice.value) }));
  for (const [id, [quantity, title]] of Object.entries(TRAINING_PLOTS)) registerPlot(id, () => drawTraining(id, quantity, title));
}
