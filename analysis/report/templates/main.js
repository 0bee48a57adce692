// Start-up: legend, sweep switch, theme; then everything is drawn once.
function setUpLegend() {
  const bar = byId("variants");
  const buttons = [...bar.querySelectorAll("button")];
  buttons.forEach((button, variant) => button.addEventListener("click", () => isolate(variant)));
  redraws.push(() => {
    bar.classList.toggle("isolating", state.isolated !== null);
    buttons.forEach((button, variant) => {
      button.setAttribute("aria-pressed", String(state.isolated === variant));
      button.querySelector("svg").style.color = color(variant);
    });
  });
}

function setUpSweeps() {
  for (const input of document.querySelectorAll('input[name="sweep"]')) {
    input.addEventListener("change", () => update({ sweep: Number(input.value), strength: null, training: 0 }));
  }
  redraws.push(() => {
    for (const block of document.querySelectorAll("[data-sweep]")) block.hidden = Number(block.dataset.sweep) !== state.sweep;
  });
}

setUpSweeps();
setUpLegend();
setUpFrontier();
setUpPanels();
setUpPractice();
setUpTraining();
setUpSamples();
const prefersDark = matchMedia("(prefers-color-scheme: dark)");
byId("theme").addEventListener("click", () => setTheme(!isDark()));
prefersDark.addEventListener("change", () => setTheme(prefersDark.matches));
setTheme(prefersDark.matches);
addEventListener("beforeprint", () => document.querySelectorAll(".plot").forEach((plot) => plot.redraw?.()));
document.documentElement.dataset.ready = "true";
