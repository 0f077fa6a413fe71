// Draws every figure of a study's page into its place, once Plotly is unpacked.
loadPlotly().then(() => {
  const figures = JSON.parse(document.getElementById("figures").textContent);
  for (const [place, figure] of Object.entries(figures)) {
    Plotly.newPlot(place, figure.data, figure.layout, { responsive: true });
  }
});
