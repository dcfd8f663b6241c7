// A question under change: Enter sends it again, Escape leaves it as it was.

import { button } from "./dom.js";
import { el } from "./elements.js";
import { t } from "./words.js";

export function editor(content, send, cancel) {
  const area = el("textarea", {
    value: content,
    rows: 3,
    dir: "auto",
    maxLength: 200000,
    "aria-label": t("edit"),
    on: { keydown: onKey },
  });
  const node = el(
    "div",
    { className: "editing" },
    area,
    el(
      "p",
      { className: "row end" },
      el("small", { textContent: t("editHint") }),
      button(t("cancel"), cancel),
      button(t("send"), again, { className: "main" }),
    ),
  );

  function again() {
    if (area.value.trim()) send(area.value);
  }

  function onKey(event) {
    if (event.key === "Escape") cancel();
    if (event.key !== "Enter" || event.shiftKey || event.isComposing) return;
    event.preventDefault();
    again();
  }

  return { node, focus: () => area.focus() };
}
