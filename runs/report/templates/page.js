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
  if (narrow) dressed.legend = { ...dressed.legend, orientation: "h", y: 1.02, yanchor: "bottom", x: 0, xanchor: "left" };
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
  const places = [canvas.closest("figure"), canvas.closest("section")];  // its own selection, or its section's
  const select = (name) => places.map((place) => place.querySelector(`select[data-control="${name}"]`)).find(Boolean);
  return names.map((name) => select(name).value).join("|");
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

const keys = (data) => data.filter((trace) => trace.name && trace.showlegend !== false).length;

// The figure that a place shows now: that of the selections, at the slider's step.
function shown(canvas) {
  const found = figures[canvas.id][choice(canvas)];
  if (!found) return null;
  const figure = structuredClone(found);
  if (canvas.dataset.follows) following[canvas.dataset.follows](figure, chosenStep(canvas));
  return figure;
}

function draw(canvas) {
  const figure = shown(canvas);
  if (!figure) {
    Plotly.purge(canvas);
    canvas.innerHTML = '<p class="none">Not measured.</p>';
    return;
  }
  canvas.querySelector(".none")?.remove();
  // On a phone a legend takes a line a name: the place grows with it.
  const narrow = window.innerWidth <= 600 && !document.documentElement.dataset.print;
  canvas.style.height = narrow ? `${320 + 16 * Math.max(0, keys(figure.data) - 2)}px` : "";
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

// Names stand escaped in a figure, for Plotly reads tags in them.
const plain = (text) => new DOMParser().parseFromString(text, "text/html").documentElement.textContent;
const escaped = (text) => text.replaceAll("&", "&amp;").replaceAll("<", "&lt;");

// The numbers of a figure: one row a point with its limits, or a row a cell of a heat map.
function numbers(figure) {
  const [across, up] = ["xaxis", "yaxis"].map((axis) => figure.layout[axis]?.title?.text || axis[0]);
  const map = figure.data.find((trace) => trace.z);
  if (map) {
    const cells = map.z.flatMap((row, i) => row.map((value, j) => [map.x[j], map.y[i], value]));
    return [[across, up, map.colorbar?.title?.text ?? "value"], ...cells];
  }
  const wide = figure.data.some((trace) => trace.error_x), noted = figure.data.some((trace) => trace.customdata);
  const short = (value) => Number(value.toPrecision(6));
  const limits = (bars, value, i) => (bars ? [short(value - bars.arrayminus[i]), short(value + bars.array[i])] : ["", ""]);
  const rows = figure.data.flatMap((trace) => trace.x.map((x, i) => [
    plain(trace.name ?? ""), x, ...(wide ? limits(trace.error_x, x, i) : []),
    trace.y[i], ...limits(trace.error_y, trace.y[i], i), ...(noted ? [trace.customdata?.[i] ?? ""] : []),
  ]));
  const left = wide ? [`${across}, low`, `${across}, high`] : [];
  return [["series", across, ...left, up, "low", "high", ...(noted ? ["point"] : [])], ...rows];
}

function table(canvas) {
  const figure = shown(canvas);
  const cell = (value) => (/[",\n]/.test(`${value}`) ? `"${`${value}`.replaceAll('"', '""')}"` : value ?? "");
  return (figure ? numbers(figure) : []).map((row) => row.map(cell).join(",")).join("\n") + "\n";
}

// A figure for a paper or a slide: light, with its title, and of one size, whatever the screen is.
function picture(canvas) {
  const root = document.documentElement.dataset;
  root.print = "true";
  const figure = shown(canvas);
  const data = tinted(figure.data), layout = themed(figure.layout);
  delete root.print;
  const title = canvas.getAttribute("aria-label");
  const where = [document.querySelector("h1").textContent, ...choice(canvas).split("|")].filter(Boolean).join(", ");
  const text = `<b>${escaped(title)}</b><br><span style="font-size:12px">${escaped(where)}</span>`;
  Object.assign(layout, {
    title: { text, x: 0.02, xanchor: "left", y: 0.96, yanchor: "top", font: { size: 16 } },
    margin: { ...layout.margin, t: 80 + (layout.legend?.orientation === "h" ? 20 * Math.ceil(keys(data) / 3) : 0) }, font: { ...layout.font, size: 13 }, paper_bgcolor: "#ffffff",
  });
  return { data, layout };
}

function save(button) {
  const canvas = document.getElementById(button.dataset.plot);
  const name = [canvas.id, ...choice(canvas).split("|")].filter(Boolean).join("-").replaceAll(/[^\w.-]+/g, "-");
  if (!shown(canvas)) return;
  if (button.dataset.save === "png") {
    Plotly.downloadImage(picture(canvas), { format: "png", width: 900, height: 520, scale: 2, filename: name });
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
    const canvas = svg.closest(".canvas");
    if (printing) Plotly.relayout(canvas, { width: canvas.closest(".wide") ? 690 : 340, height: 280 });
  });
}

function listen() {
  document.querySelectorAll(".controls select, .controls input").forEach((control) => {
    control.addEventListener("input", () => {
      const place = control.closest("figure") ?? control.closest("section");
      const moved = control.matches("input");
      if (moved) control.nextElementSibling.value = control.dataset.steps.split(" ")[control.value];
      place.querySelectorAll(moved ? ".canvas[data-follows]" : ".canvas").forEach(draw);
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
