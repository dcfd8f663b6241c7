// The training view: the runs of the server's folder, and their figures while they train.

import { get } from "./api.js";
import { lineChart } from "./chart.js";
import { errorLine } from "./dom.js";
import { el } from "./elements.js";
import { AXES, RunData } from "./rundata.js";
import { runList, runTable } from "./runlist.js";
import { sampleView } from "./samples.js";
import { read, write } from "./storage.js";
import { t } from "./words.js";

const POLL_MS = 2000;
const MOST_RUNS = 8;
const FIRST = ["loss", "valid_loss", "bits_per_byte", "tokens_per_second", "learning_rate", "gradient_norm"];

export function mountTraining(root) {
  const options = { axis: "step", isLog: false, ...read("charts") };
  if (!AXES.includes(options.axis)) options.axis = "step";
  // Name -> {color, data}; a run keeps its colour.
  const picked = new Map();
  const chosen = () => [...picked.values()].sort((one, other) => one.data.name.localeCompare(other.data.name));
  const charts = new Map();
  const list = runList(pick);
  const samples = sampleView();
  const notice = el("div", { role: "status" });
  const table = el("div", { className: "scroll" });
  const first = el("div", { className: "charts" });
  const more = el("div", { className: "charts" });
  const rest = el("details", { className: "more", hidden: true }, el("summary", { textContent: t("more") }), more);
  const axis = el(
    "select",
    { "aria-label": t("axis"), on: { change: () => choose({ axis: axis.value }) } },
    ...AXES.map((name) =>
      el("option", { value: name, textContent: t(`axis_${name}`), selected: name === options.axis }),
    ),
  );
  const log = el("input", {
    type: "checkbox",
    checked: options.isLog,
    on: { change: () => choose({ isLog: log.checked }) },
  });
  const tools = el(
    "div",
    { className: "row tools", hidden: true },
    axis,
    el("label", { className: "check" }, log, t("log")),
  );
  root.append(list.node, el("div", { className: "page" }, notice, table, tools, first, rest, samples.node));
  let runs = [];
  let timer = 0;
  let isShown = false;
  let isFirst = true;

  function choose(changed) {
    Object.assign(options, changed);
    write("charts", options);
    draw();
  }

  function pick(name, isPicked) {
    if (!isPicked) picked.delete(name);
    else {
      if (picked.size === MOST_RUNS) picked.delete(picked.keys().next().value);
      const taken = [...picked.values()].map(({ color }) => color);
      const color = Array.from({ length: MOST_RUNS }, (_, index) => `s${index}`).find((one) => !taken.includes(one));
      picked.set(name, { color, data: new RunData(name) });
    }
    write("runs", [...picked.keys()]);
    list.show(runs, picked);
    draw();
    update();
  }

  /** What was picked last time, or the run that grew last. */
  function pickFirst() {
    isFirst = false;
    const known = runs.map(({ name }) => name);
    const before = read("runs");
    const names = Array.isArray(before) ? before.filter((name) => known.includes(name)) : [];
    const newest = runs.filter(({ age }) => age !== null).sort((one, other) => one.age - other.age)[0];
    for (const name of names.length || !newest ? names : [newest.name])
      picked.set(name, { color: `s${picked.size}`, data: new RunData(name) });
  }

  // One at a time; a wish that comes meanwhile is granted behind it.
  let isBusy = false;
  let isWanted = false;

  async function update() {
    clearTimeout(timer);
    isWanted = isBusy;
    if (isBusy) return;
    isBusy = true;
    try {
      const found = await get("page/runs");
      runs = found.runs;
      if (isFirst) pickFirst();
      for (const name of [...picked.keys()]) if (!runs.some((run) => run.name === name)) picked.delete(name);
      list.show(runs, picked);
      const news = await Promise.all([...picked.values()].map(({ data }) => data.pull()));
      tell(found.shown);
      if (news.some(Boolean)) draw();
      else drawTable();
      again();
    } catch (error) {
      notice.replaceChildren(errorLine(error.message));
      // A key that was not given is not asked for every two seconds.
      if (error.status !== 401) again();
    } finally {
      isBusy = false;
      if (isWanted) update();
    }
  }

  function again() {
    if (isShown && !document.hidden) timer = setTimeout(update, POLL_MS);
  }

  function tell(hasFolder) {
    const broken = [...picked.values()].reduce((sum, { data }) => sum + data.broken, 0);
    const isEmpty = picked.size && [...picked.values()].every(({ data }) => !data.axes.step.length);
    const word = !hasFolder
      ? "noFolder"
      : !runs.length
        ? "noRuns"
        : !picked.size
          ? "pickRuns"
          : isEmpty
            ? "noRows"
            : "";
    notice.replaceChildren(
      ...(word
        ? [
            el(
              "div",
              { className: "empty" },
              el("p", { textContent: t(word) }),
              hasFolder ? null : el("pre", { textContent: "minimind serve runs/mine/sft --runs runs" }),
            ),
          ]
        : []),
      ...(broken ? [el("p", { className: "note", textContent: t("broken", broken) })] : []),
    );
    list.node.hidden = !runs.length;
  }

  function draw() {
    drawTable();
    const keys = new Set([...picked.values()].flatMap(({ data }) => [...data.columns.keys()]));
    const others = [...keys].filter((key) => !FIRST.includes(key));
    first.replaceChildren(...drawn(FIRST.filter((key) => keys.has(key))));
    more.replaceChildren(...drawn(others));
    rest.hidden = !others.length;
    tools.hidden = !keys.size;
    samples.show(chosen());
  }

  function drawTable() {
    table.replaceChildren(...(picked.size ? [runTable(chosen(), runs)] : []));
  }

  function drawn(keys) {
    return keys.map((key) => {
      if (!charts.has(key)) charts.set(key, lineChart(t(key), { place: (label, along) => t(`at_${along}`, label) }));
      const series = chosen().map(({ color, data }) => ({
        name: data.name,
        color,
        points: data.points(key, options.axis),
      }));
      charts.get(key).draw(series, options);
      return charts.get(key).node;
    });
  }

  document.addEventListener("visibilitychange", () => isShown && !document.hidden && update());
  return {
    show: () => {
      isShown = true;
      update();
    },
    hide: () => {
      isShown = false;
      clearTimeout(timer);
    },
  };
}
