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

// The step that the section's slider stands at; the last one where there is no slider.
function chosenStep(canvas) {
  const slider = canvas.closest("section").querySelector("input[data-steps]");
  return slider ? Number(slider.dataset.steps.split(" ")[slider.value]) : Infinity;
}

const lastBefore = (steps, step) => Math.max(0, steps.filter((s) => Number(s) <= step).length - 1);

// What the slider changes: a frame on a heat map's column, or the measurement that a profile shows.
const following = {
  mark(figure, step) {
    const at = lastBefore(figure.data[0].x, step);
    const frame = { type: "rect", xref: "x", yref: "paper", x0: at - 0.5, x1: at + 0.5, y0: 0, y1: 1 };
    figure.layout.shapes = [{ ...frame, line: { color: colours("--ink"), width: 1.5 } }];
  },
  profile(figure, step) {
    for (const trace of figure.data.filter((one) => one.meta)) {
      const at = lastBefore(trace.meta.steps, step);
      trace.y = trace.meta.shares[at];
      trace.name = `${trace.meta.name}step ${trace.meta.steps[at]}`;
    }
  },
};

function draw(canvas) {
  const found = figures[canvas.id][choice(canvas)];
  if (!found) {
    Plotly.purge(canvas);
    canvas.innerHTML = '<p class="none">Not measured.</p>';
    return;
  }
  canvas.querySelector(".none")?.remove();
  const figure = structuredClone(found);
  if (canvas.dataset.follows) following[canvas.dataset.follows](figure, chosenStep(canvas));
  const options = {
    responsive: true,
    displaylogo: false,
    displayModeBar: window.innerWidth > 600,
    modeBarButtons: [["zoom2d", "pan2d", "resetScale2d"]],
  };
  Plotly.react(canvas, tinted(figure.data), themed(figure.layout), options);
}

function drawAll() {
  document.querySelectorAll(".canvas").forEach(draw);
}

// The numbers of a figure as CSV: one line a point, or a cell of a heat map.
function table(canvas) {
  const rows = [["series", "x", "y", "value", "low", "high"]];
  for (const trace of figures[canvas.id][choice(canvas)]?.data ?? []) {
    if (trace.z) {
      trace.z.forEach((row, i) => row.forEach((value, j) => rows.push(["", trace.x[j], trace.y[i], value, "", ""])));
    } else if (trace.hoverinfo !== "skip") {
      const bars = trace.error_y;
      trace.x.forEach((x, i) => rows.push([trace.name ?? "", x, "", trace.y[i],
        bars ? trace.y[i] - bars.arrayminus[i] : "", bars ? trace.y[i] + bars.array[i] : ""]));
    }
  }
  const cell = (value) => /[",\n]/.test(`${value}`) ? `"${`${value}`.replaceAll('"', '""')}"` : value ?? "";
  return rows.map((row) => row.map(cell).join(",")).join("\n") + "\n";
}

function save(button) {
  const canvas = document.getElementById(button.dataset.plot);
  const name = [canvas.id, ...choice(canvas).split("|")].filter(Boolean).join("-");
  if (button.dataset.save === "png") {
    Plotly.downloadImage(canvas, { format: "png", scale: 2, filename: name });
    return;
  }
  const place = URL.createObjectURL(new Blob([table(canvas)], { type: "text/csv" }));
  Object.assign(document.createElement("a"), { href: place, download: `${name}.csv` }).click();
  URL.revokeObjectURL(place);
}

// Paper is white and narrow, whatever the screen is.
function forPaper(printing) {
  if (printing) document.documentElement.dataset.print = "true";
  else delete document.documentElement.dataset.print;
  drawAll();
  document.querySelectorAll(".canvas .main-svg").forEach((svg) => {
    if (printing) Plotly.relayout(svg.closest(".canvas"), { width: 340, height: 280 });
  });
}

function listen() {
  document.querySelectorAll(".controls select, .controls input").forEach((control) => {
    control.addEventListener("input", () => {
      const section = control.closest("section");
      const moved = control.matches("input");
      if (moved) control.nextElementSibling.value = control.dataset.steps.split(" ")[control.value];
      section.querySelectorAll(moved ? ".canvas[data-follows]" : ".canvas").forEach(draw);
    });
  });
  document.querySelectorAll("[data-save]").forEach((button) => button.addEventListener("click", () => save(button)));
  window.matchMedia("(prefers-color-scheme: dark)").addEventListener("change", drawAll);
  window.addEventListener("beforeprint", () => forPaper(true));
  window.addEventListener("afterprint", () => forPaper(false));
}

loadPlotly().then(() => {
  drawAll();
  listen();
  document.documentElement.dataset.ready = "true";
});
