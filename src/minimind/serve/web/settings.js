// How the model answers: the panel beside the chat, and its values as fields of a request. An empty field leaves a
// setting to the server.

import { field, iconButton } from "./dom.js";
import { el } from "./elements.js";
import { read, write } from "./storage.js";
import { t } from "./words.js";

// Name, least, most, step.
const NUMBERS = [
  ["temperature", 0, 2, 0.1],
  ["top_p", 0, 1, 0.05],
  ["top_k", 0, 1000000, 1],
  ["min_p", 0, 1, 0.01],
  ["repetition_penalty", 0.1, 10, 0.05],
  ["max_tokens", 1, 1000000, 1],
  ["seed", 0, 2 ** 53 - 1, 1],
];
const NUM_ALTERNATIVES = 5;

/** {model, think, tokens, system, tools: names, temperature, ...} */
export function loadSettings() {
  const value = read("settings");
  const known = Object.entries(value && typeof value === "object" ? value : {});
  const plain = Object.fromEntries(known.filter(([, one]) => ["string", "boolean"].includes(typeof one)));
  const tools = Array.isArray(value?.tools) ? value.tools : [];
  return { system: "", ...plain, tools: tools.filter((name) => typeof name === "string") };
}

export const saveSettings = (settings) => write("settings", settings);

/** {node, offer(schemas)}: `offer` fills in the server's tools. */
export function settingsPanel(settings, changed, close) {
  const keep = (name, value) => {
    settings[name] = value;
    changed();
  };
  const numbers = NUMBERS.map(([name, min, max, step]) => {
    const input = el("input", {
      type: "number",
      name,
      min,
      max,
      step,
      inputMode: "decimal",
      value: settings[name] ?? "",
      placeholder: t("standard"),
      on: { input: () => keep(name, input.value) },
    });
    return field(t(name), input);
  });
  const system = el("textarea", {
    rows: 3,
    dir: "auto",
    name: "system",
    maxLength: 100000,
    value: settings.system,
    on: { input: () => keep("system", system.value) },
  });
  const boxes = el("div", { className: "boxes" });
  const node = el(
    "aside",
    { className: "settings", hidden: true, id: "settings", "aria-label": t("settings") },
    el("div", { className: "head" }, el("h2", { textContent: t("settings") }), iconButton("close", t("close"), close)),
    field(t("system"), system),
    el("fieldset", {}, el("legend", { textContent: t("tools") }), el("small", { textContent: t("toolsHint") }), boxes),
    el(
      "fieldset",
      {},
      el("legend", { textContent: t("sampling") }),
      el("small", { textContent: t("samplingHint") }),
      el("div", { className: "numbers" }, ...numbers),
    ),
  );

  function offer(schemas) {
    boxes.replaceChildren(
      ...schemas.map(({ function: { name, description } }) => {
        const box = el("input", {
          type: "checkbox",
          name: "tool",
          value: name,
          checked: settings.tools.includes(name),
          on: {
            change: () =>
              keep(
                "tools",
                schemas
                  .map((tool) => tool.function.name)
                  .filter((other) => (other === name ? box.checked : settings.tools.includes(other))),
              ),
          },
        });
        return el(
          "label",
          { className: "check" },
          box,
          el("span", {}, el("code", { textContent: name }), el("small", { textContent: description })),
        );
      }),
    );
  }
  return { node, offer };
}

/** The settings as fields of a request; schemas: the tools of the server. */
export function requestFields(settings, schemas) {
  const body = {
    chat_template_kwargs: { enable_thinking: Boolean(settings.think) },
    stream_options: { include_usage: true },
  };
  for (const [name] of NUMBERS) {
    if (settings[name] !== undefined && settings[name] !== "") body[name] = Number(settings[name]);
  }
  const tools = schemas.filter((tool) => settings.tools.includes(tool.function.name));
  if (tools.length) body.tools = tools;
  if (settings.tokens) Object.assign(body, { logprobs: true, top_logprobs: NUM_ALTERNATIVES });
  return body;
}
