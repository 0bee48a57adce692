// The sample browser: rows of one cell's last checkpoint, sorted by gain.
const SORTS = {
  gain: (a, b) => b.gold - b.reference_gold - (a.gold - a.reference_gold),
  loss: (a, b) => -SORTS.gain(a, b),
  gold: (a, b) => b.gold - a.gold,
};

// Titles are repeated in each cell: on a narrow screen rows become blocks without a head.
function sampleCell(title, text, kind = "") {
  return element("td", { role: "cell", "data-title": title, class: kind }, text);
}

function showSamples() {
  const { samples, note } = sweep();
  const cell = samples[Number(byId("cell").value)];
  const body = byId("sample-rows");
  body.replaceChildren();
  byId("sample-note").textContent = note.samples;
  if (!cell) return;
  const rows = cell.rows.map(([prompt, response, gold, reference, reference_gold]) => ({ prompt, response, gold, reference, reference_gold }));
  for (const row of rows.sort(SORTS[byId("sort").value])) {
    const line = element("tr", { role: "row" });
    const texts = [["prompt", row.prompt], ["reference", row.reference], ["policy", row.response]];
    const golds = [["gold, reference", row.reference_gold], ["gold, policy", row.gold], ["gain", row.gold - row.reference_gold]];
    for (const [title, place] of texts) line.append(sampleCell(title, DATA.texts[place]));
    for (const [title, value] of golds) line.append(sampleCell(title, value.toFixed(2).replace("-", "−"), "number"));
    body.append(line);
  }
}

function setUpSamples() {
  let filled = null;
  redraws.push(() => {
    if (filled === state.sweep) return;
    filled = state.sweep;
    byId("cell").replaceChildren(...sweep().samples.map((cell, i) => element("option", { value: i }, cell.name)));
    showSamples();
  });
  byId("cell").addEventListener("change", showSamples);
  byId("sort").addEventListener("change", showSamples);
}
