// A tool call as a card: what the model asks for, the two answers a reader may give, and what came of it.

import { button, icon } from "./dom.js";
import { el } from "./elements.js";
import { t } from "./words.js";

/** allow, refuse: what the buttons do; null where nothing is to be decided. isKnown: the server has this tool.
 * isUnderWay: it runs, and its result is not there yet. */
export function callCard(call, { allow = null, refuse = null, isKnown = true, isUnderWay = false } = {}) {
  const isOpen = call.result === null;
  const head = el(
    "div",
    { className: "head" },
    icon("tool"),
    el("span", { textContent: t(isOpen ? "call" : "called") }),
    el("code", { textContent: call.name }),
  );
  const card = el(
    "section",
    { className: "call", "aria-label": t("called") },
    head,
    el("pre", { textContent: pretty(call.arguments) }),
  );
  if (call.declined) card.append(el("p", { className: "note", textContent: t("declined") }));
  else if (!isOpen)
    card.append(
      el(
        "div",
        { className: "result" },
        el("small", { textContent: t("result") }),
        el("pre", { textContent: pretty(call.result) }),
      ),
    );
  else if (refuse) {
    if (!isKnown) card.append(el("p", { className: "note", textContent: t("unknownTool") }));
    const choices = [
      isKnown && button(t("run"), () => choose(allow), { className: "main" }),
      button(t("decline"), () => choose(refuse)),
    ].filter(Boolean);
    const disable = () => {
      for (const choice of choices) choice.disabled = true;
    };
    const choose = (action) => {
      disable();
      action();
    };
    if (isUnderWay) disable();
    card.append(el("p", { className: "row" }, ...choices));
  }
  return card;
}

function pretty(json) {
  try {
    return JSON.stringify(JSON.parse(json), null, 1).replaceAll(/\n\s*/g, " ");
  } catch {
    return json;
  }
}
