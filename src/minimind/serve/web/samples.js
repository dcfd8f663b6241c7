// What runs said by a step, the last of each prompt: the slider picks the step, and stays at the newest while it is there.

import { el } from "./elements.js";
import { t } from "./words.js";

export function sampleView() {
  const slider = el("input", { type: "range", min: 0, step: 1, "aria-label": t("step"), on: { input: draw } });
  const label = el("output");
  const found = el("div", { className: "samples" });
  const node = el(
    "section",
    { hidden: true, "aria-label": t("samples") },
    el("div", { className: "row" }, el("h2", { textContent: t("samples") }), slider, label),
    found,
  );
  let chosen = [];
  let steps = [];
  let told = "";

  /** runs: [{color, data}, ...] */
  function show(runs) {
    chosen = runs;
    const before = steps[slider.value];
    const isNewest = Number(slider.value) === steps.length - 1 || before === undefined;
    steps = [...new Set(runs.flatMap(({ data }) => data.samples.map(({ step }) => step)))].sort(
      (one, other) => one - other,
    );
    slider.max = Math.max(steps.length - 1, 0);
    slider.value = isNewest || !steps.includes(before) ? slider.max : steps.indexOf(before);
    node.hidden = !steps.length;
    draw();
  }

  function draw() {
    const step = steps[slider.value];
    label.textContent = t("at_step", step);
    slider.setAttribute("aria-valuetext", label.textContent);
    const rows = chosen.flatMap(({ color, data }) =>
      latest(data.samples, step).map((sample) => ({ ...sample, color, name: data.name })),
    );
    if (JSON.stringify(rows) === told) return;
    told = JSON.stringify(rows);
    found.replaceChildren(
      ...rows.map(({ color, name, step: at, prompt, text }) =>
        el(
          "article",
          {},
          el(
            "small",
            { className: `key ${color}` },
            el("span", { textContent: name }),
            at === step ? null : el("small", { textContent: ` · ${t("at_step", at)}` }),
          ),
          el("p", { className: "prompt", dir: "auto", textContent: prompt }),
          el("p", { dir: "auto", textContent: text }),
        ),
      ),
    );
  }

  return { node, show };
}

/** Of each prompt the last sample up to a step. */
function latest(samples, step) {
  const found = new Map();
  for (const sample of samples) if (sample.step <= step) found.set(sample.prompt, sample);
  return [...found.values()];
}
