// An answer's text as nodes: fenced code, `code` and **bold**; all else as it was written.

import { copyText, iconButton } from "./dom.js";
import { el } from "./elements.js";
import { t } from "./words.js";

const FENCE = /^ {0,3}```(.*)/;
const MARKED = /(`[^`\n]+`|\*\*[^*\n]+\*\*)/;

/** The nodes of a text. A fence that is still open, as in an answer under way, reaches to the end. */
export function rich(text) {
  const nodes = [];
  let lines = [];
  let isCode = false;
  let language = "";
  const close = () => {
    const block = lines.join("\n");
    if (isCode) nodes.push(codeBlock(block, language));
    else if (block.trim()) nodes.push(el("div", {}, ...inline(block.replace(/^\n+|\n+$/g, ""))));
    lines = [];
  };
  for (const line of text.split("\n")) {
    const fence = FENCE.exec(line);
    if (fence) {
      close();
      language = fence[1].trim().split(/\s/)[0];
      isCode = !isCode;
    } else lines.push(line);
  }
  close();
  return nodes;
}

/** Its button copies what the block holds when it is pressed: of an answer under way more comes. */
function codeBlock(text, language) {
  const copy = iconButton("copy", t("copyCode"), (event) =>
    copyText(event.target.closest("figure").querySelector("code").textContent),
  );
  const head = el("figcaption", { dir: "ltr" }, el("small", { textContent: language }), copy);
  return el("figure", {}, head, el("pre", { dir: "ltr" }, el("code", { textContent: text })));
}

function inline(text) {
  return text
    .split(MARKED)
    .filter(Boolean)
    .map((part) => {
      if (!MARKED.test(part)) return part;
      return part[0] === "`"
        ? el("code", { dir: "ltr", textContent: part.slice(1, -1) })
        : el("strong", { textContent: part.slice(2, -2) });
    });
}
