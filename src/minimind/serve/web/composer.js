// The question: its field, the model, what is switched on, and the button that sends and stops.

import { button, icon, iconButton } from "./dom.js";
import { el } from "./elements.js";
import { t } from "./words.js";

const SWITCHES = ["think", "tokens"];

/** actions: {send(text), whether it was taken; stop; changed(name); togglePanel} */
export function composer(settings, actions) {
  const input = el("textarea", {
    rows: 1,
    maxLength: 200000,
    placeholder: t("ask"),
    "aria-label": t("ask"),
    className: "question",
    dir: "auto",
    on: { keydown: onKey, input: fit },
  });
  const models = el("select", {
    "aria-label": t("model"),
    on: {
      change: () => {
        settings.model = models.value;
        actions.changed("model");
      },
    },
  });
  const send = iconButton("send", t("send"), () => (isRunning ? actions.stop() : take()), {
    className: "main icon send",
  });
  const switches = SWITCHES.map((name) =>
    button(
      t(name),
      () => {
        settings[name] = !settings[name];
        actions.changed(name);
      },
      { className: "chip", title: t(`${name}Hint`) },
    ),
  );
  const panel = { "aria-expanded": "false", "aria-controls": "settings" };
  const tools = button(t("tools"), () => actions.togglePanel(), { className: "chip", title: t("toolsHint"), ...panel });
  const more = iconButton("settings", t("settings"), () => actions.togglePanel(), panel);
  let isRunning = false;
  const node = el(
    "div",
    { className: "composer" },
    input,
    el("div", { className: "row" }, models, ...switches, tools, el("span", { className: "gap" }), more, send),
  );

  function onKey(event) {
    if (event.key === "Enter" && !event.shiftKey && !event.isComposing) {
      event.preventDefault();
      take();
    }
  }

  function take() {
    if (isRunning || !actions.send(input.value)) return;
    input.value = "";
    fit();
  }

  function fit() {
    input.style.height = "auto";
    input.style.height = `${Math.min(input.scrollHeight, 220)}px`;
  }

  function show(running) {
    isRunning = running;
    const name = running ? "stop" : "send";
    send.replaceChildren(icon(name));
    send.title = t(name);
    send.setAttribute("aria-label", t(name));
    for (const [index, name] of SWITCHES.entries())
      switches[index].setAttribute("aria-pressed", Boolean(settings[name]));
    tools.textContent = settings.tools.length ? `${t("tools")} · ${settings.tools.length}` : t("tools");
    tools.classList.toggle("on", settings.tools.length > 0);
  }

  return {
    node,
    show,
    focus: () => matchMedia("(hover: hover)").matches && input.focus(),
    model: () => models.value,
    offer: (names) => {
      models.replaceChildren(...names.map((name) => el("option", { value: name, textContent: name })));
      if (names.includes(settings.model)) models.value = settings.model;
    },
    setPanel: (isOpen) => {
      for (const one of [tools, more]) one.setAttribute("aria-expanded", isOpen);
    },
  };
}
