// An answer's text as nodes: fenced code, `code` and **bold**; all else as it was written.

import { el } from "./elements.js";

const FENCE = /^ {0,3}```/;
const MARKED = /(`[^`\n]+`|\*\*[^*\n]+\*\*)/;

/** The nodes of a text. A fence that is still open, as in an answer under way, reaches to the end. */
export function rich(text) {
  const nodes = [];
  let lines = [];
  let isCode = false;
  const close = () => {
    const block = lines.join("\n");
    if (isCode) nodes.push(el("pre", { dir: "ltr" }, el("code", { textContent: block })));
    else if (block.trim()) nodes.push(el("div", {}, ...inline(block.replace(/^\n+|\n+$/g, ""))));
    lines = [];
  };
  for (const line of text.split("\n")) {
    if (FENCE.test(line)) {
      close();
      isCode = !isCode;
    } else lines.push(line);
  }
  close();
  return nodes;
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
