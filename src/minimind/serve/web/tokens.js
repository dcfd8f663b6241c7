// The token view: each token on a ground by its probability. Pointing at one, or the arrow keys, show what else might
// have stood there.

import { el } from "./elements.js";
import { t } from "./words.js";

const EDGES = [0.05, 0.2, 0.5, 0.9];
const GAP = 6;

/** {node, update}: `update` shows the tokens that have come since.
 * tokens: [[text, logprob, [[text, logprob], ...]], ...] */
export function tokenView(tokens) {
  const tip = el("div", { className: "tip", role: "status", hidden: true });
  const view = el("div", { className: "text tokens", dir: "auto", role: "group", "aria-label": t("tokenView") });
  const spans = [];
  const update = () =>
    tokens.slice(spans.length).forEach(([text, logprob]) => {
      const grade = EDGES.filter((edge) => Math.exp(logprob) >= edge).length;
      // One stop for the tab key; the arrow keys go on from there.
      spans.push(
        el("span", { className: `token p${grade}`, tabIndex: spans.length ? -1 : 0, textContent: spelled(text) }),
      );
      view.append(spans.at(-1));
      if (text.endsWith("\n")) view.append("\n");
    });
  const place = (event) => spans.indexOf(event.target);
  const show = (index) => {
    if (index >= 0) point(tip, spans[index], tokens[index]);
  };
  view.addEventListener("pointerover", (event) => show(place(event)));
  view.addEventListener("click", (event) => spans[place(event)]?.focus());
  view.addEventListener("focusin", (event) => show(place(event)));
  view.addEventListener("pointerleave", () => (tip.hidden = true));
  view.addEventListener("focusout", () => (tip.hidden = true));
  view.addEventListener("keydown", (event) => {
    const next = spans[place(event) + { ArrowRight: 1, ArrowLeft: -1 }[event.key]];
    if (!next) return;
    event.preventDefault();
    event.target.tabIndex = -1;
    next.tabIndex = 0;
    next.focus();
  });
  return { node: el("div", { className: "token-view" }, view, tip), update };
}

function point(tip, span, [text, logprob, top]) {
  const isListed = top.some(([other]) => other === text);
  const rows = (isListed ? top : [...top, [text, logprob]]).map(([other, score]) => {
    const share = Math.exp(score);
    const bar = el("span", { className: "bar" });
    bar.style.setProperty("--share", share);
    return el(
      "tr",
      { className: other === text ? "chosen" : "" },
      el("td", {}, el("code", { textContent: spelled(other) })),
      el("td", {}, bar),
      el("td", { textContent: percent(share) }),
    );
  });
  tip.replaceChildren(el("table", { "aria-label": t("probability") }, ...rows));
  tip.hidden = false;
  const room = tip.parentElement.clientWidth - tip.offsetWidth;
  const token = span.getBoundingClientRect();
  const frame = span.closest(".thread").getBoundingClientRect();
  const isLow = token.bottom + tip.offsetHeight + GAP > frame.bottom && token.top - tip.offsetHeight - GAP > frame.top;
  tip.style.left = `${Math.max(0, Math.min(span.offsetLeft, room))}px`;
  tip.style.top = `${isLow ? span.offsetTop - tip.offsetHeight - GAP : span.offsetTop + span.offsetHeight + GAP}px`;
}

const percent = (share) => (share < 0.0005 ? "< 0.1 %" : `${(share * 100).toFixed(1)} %`);

/** Line ends and tabs as signs, spaces as they are; a part of a character as its bytes. */
export function spelled(text) {
  const bytes = /^bytes:((?:\\x[0-9a-f]{2})+)$/.exec(text);
  return bytes ? `⟨${bytes[1].replaceAll("\\x", " ").trim()}⟩` : text.replaceAll("\n", "↵").replaceAll("\t", "⇥");
}
