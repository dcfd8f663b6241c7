// The runs at the side, to pick from, and the newest figures of those that are picked.

import { duration, short } from "./chart.js";
import { el } from "./elements.js";
import { t } from "./words.js";

// A run that logged something so lately, in seconds, is taken to be training.
const LIVELY = 120;
const COLUMNS = ["step", "loss", "valid_loss", "bits_per_byte", "tokens_per_second", "tokens", "seconds"];

const state = ({ finished, age }) => (finished ? "finished" : age !== null && age < LIVELY ? "running" : "unfinished");

/** `pick(name, isPicked)` is called when a reader does. */
export function runList(pick) {
  const list = el("ul");
  const filter = el("input", {
    type: "search",
    placeholder: t("filter"),
    "aria-label": t("filter"),
    on: { input: () => show(runs, picked) },
  });
  const node = el(
    "aside",
    { className: "side", hidden: true, "aria-label": t("runs") },
    el("h2", { textContent: t("runs") }),
    filter,
    list,
  );
  let runs = [];
  let picked = new Map();
  let told = "";

  function show(all, chosen) {
    runs = all;
    picked = chosen;
    const wanted = filter.value.toLowerCase();
    const shown = runs.filter(({ name }) => picked.has(name) || name.toLowerCase().includes(wanted));
    const rows = shown.map((run) => ({ ...run, state: state(run), age: 0, color: picked.get(run.name)?.color }));
    // Only what changed is drawn, so that the keyboard's place stays.
    if (JSON.stringify(rows) === told) return;
    told = JSON.stringify(rows);
    const focused = document.activeElement?.value;
    list.replaceChildren(...rows.map(item));
    if (focused) [...list.querySelectorAll("input")].find((box) => box.value === focused)?.focus();
  }

  function item({ name, stage, state: how, color }) {
    const box = el("input", {
      type: "checkbox",
      value: name,
      checked: Boolean(color),
      on: { change: () => pick(name, box.checked) },
    });
    const path = name.split("/").slice(0, -1).join("/");
    const last = name.split("/").at(-1);
    return el(
      "li",
      {},
      el(
        "label",
        { className: `check ${color ?? ""}` },
        box,
        el(
          "span",
          {},
          el("span", { className: "name", title: name }, path && el("small", { textContent: `${path} / ` }), last),
          el("small", { className: how }, [stage, t(how)].filter(Boolean).join(" · ")),
        ),
      ),
    );
  }

  return { node, show };
}

/** chosen: [{color, data}, ...] */
export function runTable(chosen, runs) {
  const columns = COLUMNS.filter((key) => chosen.some(({ data }) => data.last(key) !== null));
  const head = el(
    "tr",
    {},
    ...["runName", ...columns].map((key) =>
      el("th", { scope: "col", textContent: t(key === "tokens" ? "axis_tokens" : key) }),
    ),
  );
  const rows = chosen.map(({ color, data }) => {
    const how = state(runs.find(({ name }) => name === data.name) ?? { finished: false, age: null });
    return el(
      "tr",
      {},
      el(
        "th",
        { scope: "row", className: `key ${color}` },
        el("span", { textContent: data.name }),
        el("small", { className: how, textContent: t(how) }),
      ),
      ...columns.map((key) => el("td", { textContent: told(key, data.last(key)) })),
    );
  });
  return el("table", { className: "latest" }, el("thead", {}, head), el("tbody", {}, ...rows));
}

const told = (key, value) => (value === null ? "–" : key === "seconds" ? duration(value) : short(value));
