// What the views are put together from: icons, buttons, fields; text that grows in place; files and the clipboard.

import { el, svg } from "./elements.js";

/** Make these nodes the children of `node`. What is so already stays and a text grows at its end, so that a selection in
 * it stays. Elements of one name must have the same attributes. */
export function refill(node, wanted) {
  wanted.forEach((fresh, index) => {
    const old = node.childNodes[index];
    if (!old) node.append(fresh);
    else if (old.nodeName !== fresh.nodeName) old.replaceWith(fresh);
    else if (!(old instanceof Text)) refill(old, [...fresh.childNodes]);
    else if (fresh.data.startsWith(old.data)) old.appendData(fresh.data.slice(old.length));
    else old.replaceWith(fresh);
  });
  while (node.childNodes.length > wanted.length) node.lastChild.remove();
}

// Strokes on a field of 24 by 24.
const ICONS = {
  send: "M12 19V5M5.5 11.5 12 5l6.5 6.5",
  stop: "M7 7h10v10H7z",
  copy: "M9 9h10v10H9zM5 15V5h10",
  check: "M5 12.5 10 17.5 19 7.5",
  retry: "M19 12a7 7 0 1 1-2.2-5.1M19 4v4h-4",
  edit: "M4.5 19.5l.8-4L16 4.8l3.2 3.2L8.5 18.7z",
  plus: "M12 5v14M5 12h14",
  remove: "M5 7h14M10 7V5h4v2M7 7l.8 12h8.4L17 7",
  menu: "M4.5 7h15M4.5 12h15M4.5 17h15",
  settings: "M4 8h9M17 8h3M4 16h3M11 16h9M13 8a2 2 0 1 0 4 0 2 2 0 1 0-4 0M7 16a2 2 0 1 0 4 0 2 2 0 1 0-4 0",
  sun: "M12 8.5a3.5 3.5 0 1 0 0 7 3.5 3.5 0 1 0 0-7M12 3v2M12 19v2M3 12h2M19 12h2M5.7 5.7l1.4 1.4M16.9 16.9l1.4 1.4M5.7 18.3l1.4-1.4M16.9 7.1l1.4-1.4",
  moon: "M19.5 14A8 8 0 0 1 10 4.5 8 8 0 1 0 19.5 14z",
  close: "M6.5 6.5l11 11M17.5 6.5l-11 11",
  tool: "M14.5 6.5a4 4 0 0 0-5.3 5.3L4.5 16.5l3 3 4.7-4.7a4 4 0 0 0 5.3-5.3l-2.5 2.5-2.5-2.5z",
};

export const icon = (name) =>
  svg("svg", { viewBox: "0 0 24 24", class: "glyph", "aria-hidden": "true" }, svg("path", { d: ICONS[name] }));

export function button(text, click, props = {}) {
  return el("button", { type: "button", textContent: text, ...props, on: { click } });
}

/** A button that shows an icon, and says its name to whoever hovers over it or cannot see it. */
export function iconButton(name, label, click, props = {}) {
  const node = button("", click, { className: "quiet icon", title: label, "aria-label": label, ...props });
  node.append(icon(name));
  return node;
}

/** A labelled form field. */
export function field(label, input, hint = "") {
  return el(
    "label",
    { className: "field" },
    el("span", { textContent: label }),
    input,
    hint && el("small", { textContent: hint }),
  );
}

export const errorLine = (message) => el("p", { className: "error", role: "alert", textContent: message });

/** Offer `text` as a file. */
export function download(name, text, type) {
  const link = el("a", { href: URL.createObjectURL(new Blob([text], { type })), download: name });
  link.click();
  setTimeout(() => URL.revokeObjectURL(link.href), 10000);
}

/** Whether the text is in the clipboard now. Pages that came over plain HTTP from another machine have no clipboard. */
export async function copyText(text) {
  try {
    await navigator.clipboard.writeText(text);
    return true;
  } catch {
    const area = el("textarea", { value: text, className: "unseen", readOnly: true });
    document.body.append(area);
    area.select();
    const isCopied = document.execCommand("copy");
    area.remove();
    return isCopied;
  }
}
