// The tokenizer view: text as a model reads it, and as another one does beside it.

import { get, post } from "./api.js";
import { errorLine, field } from "./dom.js";
import { el } from "./elements.js";
import { read, write } from "./storage.js";
import { t } from "./words.js";

const WAIT_MS = 150;
const MOST = 20000;

export function mountTokenizer(root) {
  const before = read("tokenizers");
  const input = el("textarea", {
    rows: 4,
    dir: "auto",
    maxLength: MOST,
    value: t("sampleText"),
    "aria-label": t("typeText"),
    on: { input: later },
  });
  const selects = ["of", "compare"].map((word) => el("select", { "aria-label": t(word), on: { change: picked } }));
  const results = selects.map(() => el("section", { "aria-live": "polite" }));
  const notice = el("div");
  root.append(
    el(
      "div",
      { className: "page" },
      el("h1", { textContent: t("tokenizer") }),
      el("p", { className: "lead", textContent: t("tokenizerText") }),
      input,
      el("div", { className: "pair" }, field(t("of"), selects[0]), field(t("compare"), selects[1])),
      notice,
      el("div", { className: "pair" }, ...results),
    ),
  );
  let timer = 0;
  let control = new AbortController();

  function later() {
    clearTimeout(timer);
    timer = setTimeout(update, WAIT_MS);
  }

  function picked() {
    write(
      "tokenizers",
      selects.map((select) => select.value),
    );
    update();
  }

  async function update() {
    control.abort();
    control = new AbortController();
    const { signal } = control;
    notice.replaceChildren();
    const [one, other] = await Promise.all(
      selects.map((select, index) => readBy(select.value, results[index], signal)),
    );
    if (one && other && one.fingerprint === other.fingerprint)
      notice.replaceChildren(el("p", { className: "note", textContent: t("same") }));
  }

  /** What a tokenizer makes of the text, shown in `node`; null where there is none, or the text has changed meanwhile. */
  async function readBy(tokenizer, node, signal) {
    const text = input.value;
    node.classList.add("busy");
    let found = null;
    let nodes = [];
    try {
      if (tokenizer) found = await post("page/tokenize", { tokenizer, text }, signal);
      if (found) nodes = shown(found, text);
    } catch (error) {
      nodes = [errorLine(error.message)];
    }
    if (signal.aborted) return null;
    node.classList.remove("busy");
    node.replaceChildren(...nodes);
    return found;
  }

  function fill({ models, runs }) {
    const group = (label, kind, names) =>
      names.length
        ? [
            el(
              "optgroup",
              { label: t(label) },
              ...names.map((name) => el("option", { value: `${kind}:${name}`, textContent: name })),
            ),
          ]
        : [];
    selects.forEach((select, index) => {
      const none = index ? [el("option", { value: "", textContent: t("none") })] : [];
      select.replaceChildren(...none, ...group("served", "model", models), ...group("ofRuns", "run", runs));
      const known = [...select.options].map(({ value }) => value);
      if (Array.isArray(before) && known.includes(before[index])) select.value = before[index];
    });
  }

  get("page/tokenizers").then(
    (found) => {
      fill(found);
      update();
    },
    (error) => notice.replaceChildren(errorLine(error.message)),
  );
  return {};
}

function shown({ vocabulary, count, tokens }, text) {
  const numBytes = new TextEncoder().encode(text).length;
  const facts = [
    [count, "numTokens"],
    [[...text].length, "characters"],
    [numBytes, "numBytes"],
    [count ? (numBytes / count).toFixed(2) : "–", "bytesPer"],
    [vocabulary, "vocabulary"],
  ];
  const pieces = tokens.map(([id, piece, bytes], index) =>
    el(
      "span",
      { className: `piece c${index % 6}` },
      el("code", { textContent: spelled(piece) }),
      el("b", { textContent: id }),
      el("small", { textContent: bytes.map(hex).join(" ") }),
    ),
  );
  return [
    el(
      "p",
      { className: "figures" },
      ...facts.map(([value, word]) => el("span", {}, el("b", { textContent: value }), ` ${t(word)}`)),
    ),
    el("div", { className: "pieces" }, ...pieces),
    ...(tokens.length < count ? [el("p", { className: "note", textContent: t("first", tokens.length) })] : []),
  ];
}

const hex = (byte) => byte.toString(16).padStart(2, "0");

/** Spaces and line ends as signs; a part of a character as a dot, for its bytes stand below. */
function spelled(piece) {
  return piece === null ? "·" : piece.replaceAll(" ", "␣").replaceAll("\n", "↵").replaceAll("\t", "⇥");
}
