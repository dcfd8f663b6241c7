// The charts of a report: each stands in the page in words, with its numbers beside them, and is drawn in their place.

import { lineChart } from "../serve/web/chart.js";

for (const figure of document.querySelectorAll("figure")) {
  const { title, note, words, series, fromZero } = JSON.parse(figure.querySelector("script").textContent);
  const chart = lineChart(title, { note, words, place: (step) => `step ${step}` });
  figure.replaceWith(chart.node);
  chart.draw(series, { axis: "step", fromZero });
}
