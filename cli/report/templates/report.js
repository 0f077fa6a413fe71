"use strict";

// Plotly travels packed: a third of its size. Every browser since 2023 can unpack it.
async function loadPlotly() {
  const bytes = Uint8Array.from(atob(document.getElementById("plotly").textContent), (c) => c.charCodeAt(0));
  const stream = new Blob([bytes]).stream().pipeThrough(new DecompressionStream("gzip"));
  const script = document.createElement("script");
  script.textContent = await new Response(stream).text();
  document.head.append(script);
}

const figures = JSON.parse(document.getElementById("figures").textContent);
const colours = (name) => getComputedStyle(document.documentElement).getPropertyValue(name).trim();

function themed(layout) {
  const dressed = structuredClone(layout);
  const narrow = window.innerWidth <= 600;
  Object.assign(dressed, {
    autosize: true,
    dragmode: matchMedia("(hover: hover)").matches ? "zoom" : false,  // a finger scrolls the page
    paper_bgcolor: "rgba(0,0,0,0)",
    plot_bgcolor: "rgba(0,0,0,0)",
    font: { color: colours("--ink"), family: "system-ui, sans-serif", size: narrow ? 11 : 12 },
    modebar: { bgcolor: "rgba(0,0,0,0)", color: colours("--line"), activecolor: colours("--accent") },
    hoverlabel: { bgcolor: colours("--card"), bordercolor: colours("--line"), font: { color: colours("--ink") } },
  });
  for (const key of Object.keys(dressed).filter((name) => /^[xy]axis/.test(name))) {
    Object.assign(dressed[key], {
      gridcolor: colours("--grid"), linecolor: colours("--line"), zerolinecolor: colours("--soft"), automargin: true,
    });
  }
  return dressed;
}

// On a dark ground the same hues are lighter.
const drawn = ["#0072B2", "#D55E00", "#009E73", "#CC79A7", "#56B4E9", "#E69F00"];
function tinted(data) {
  const text = drawn.reduce((all, hue, i) => all.replaceAll(`"${hue}"`, `"${colours(`--run-${i}`)}"`), JSON.stringify(data));
  return JSON.parse(text);
}

function choice(canvas) {
  const names = canvas.dataset.controls.split(" ").filter(Boolean);
  const section = canvas.closest("section");
  return names.map((name) => section.querySelector(`select[data-control="${name}"]`).value).join("|");
}

function draw(canvas) {
  const figure = figures[canvas.id][choice(canvas)];
  if (!figure) {
    Plotly.purge(canvas);
    canvas.innerHTML = '<p class="none">Not measured.</p>';
    return;
  }
  canvas.querySelector(".none")?.remove();
  const options = {
    responsive: true,
    displaylogo: false,
    displayModeBar: window.innerWidth > 600,
    modeBarButtons: [["toImage", "zoom2d", "pan2d", "resetScale2d"]],
    toImageButtonOptions: { filename: canvas.id, scale: 2 },
  };
  Plotly.react(canvas, tinted(figure.data), themed(figure.layout), options);
}

function drawAll() {
  document.querySelectorAll(".canvas").forEach(draw);
}

loadPlotly().then(() => {
  drawAll();
  document.querySelectorAll("select").forEach((select) => {
    select.addEventListener("change", () => select.closest("section").querySelectorAll(".canvas").forEach(draw));
  });
  window.matchMedia("(prefers-color-scheme: dark)").addEventListener("change", drawAll);
  document.documentElement.dataset.ready = "true";
});
