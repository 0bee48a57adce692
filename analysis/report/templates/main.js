// Start-up: legend, sweep switch, theme; then everything is drawn once.
function setUpLegend() {
  const bar = byId("losses");
  const buttons = [...bar.querySelectorAll("button")];
  buttons.forEach((button, loss) => button.addEventListener("click", () => isolate(loss)));
  redraws.push(() => {
    bar.classList.toggle("isolating", state.isolated !== null);
    buttons.forEach((button, loss) => {
      button.setAttribute("aria-pressed", String(state.isolated === loss));
      button.querySelector("svg").style.color = color(loss);
    });
  });
}

function setUpSweeps() {
  for (const input of document.querySelectorAll('input[name="sweep"]')) {
    input.addEventListener("change", () => update({ sweep: Number(input.value), beta: null }));
  }
  redraws.push(() => {
    for (const block of document.querySelectorAll("[data-sweep]")) block.hidden = Number(block.dataset.sweep) !== state.sweep;
  });
}

setUpSweeps();
setUpLegend();
setUpFrontier();
setUpPanels();
setUpSamples();
const prefersDark = matchMedia("(prefers-color-scheme: dark)");
byId("theme").addEventListener("click", () => setTheme(!isDark()));
prefersDark.addEventListener("change", () => setTheme(prefersDark.matches));
setTheme(prefersDark.matches);
addEventListener("beforeprint", () => document.querySelectorAll(".plot").forEach((plot) => plot.redraw?.()));
document.documentElement.dataset.ready = "true";
