// One message: its thinking, its text or tokens, its calls. `update` shows what has come since, in place, so that what
// a reader has unfolded or selected stays.

import { callCard } from "./calls.js";
import { copyText, el, errorLine, icon, iconButton } from "./dom.js";
import { toMessages } from "./store.js";
import { rich } from "./text.js";
import { tokenView } from "./tokens.js";
import { t } from "./words.js";

/** actions: {retry, edit, decide(call, isAllowed), isKnown(name)}, each null where it is not on offer. */
export function messageView(message, { actions, isRunning, withTokens }) {
  const summary = el("summary");
  const thought = el("div", { className: "text" });
  const thinking = el("details", { className: "thinking" }, summary, thought);
  const [body, calls, foot] = [el("div", { className: "body text" }), el("div"), el("div")];
  const node = el("article", { className: `message ${message.role}`, "aria-label": t(message.role) }, thinking, body, calls, foot);

  function update() {
    const hasTokens = withTokens && message.tokens.length > 0;
    thinking.hidden = !message.reasoning || hasTokens;
    summary.textContent = t(isRunning && !message.content && !message.calls.length ? "thinkingNow" : "thinking");
    thought.textContent = message.reasoning;
    if (message.role === "user") body.textContent = message.content;
    else if (hasTokens) body.replaceChildren(tokenView(message.tokens));
    else body.replaceChildren(...rich(message.content));
    body.hidden = !body.childNodes.length;
    node.classList.toggle("waiting", isRunning && !message.content && !message.reasoning && !message.calls.length);
    calls.replaceChildren(...message.calls.map(card));
    foot.replaceChildren(...(isRunning ? [] : ending()));
  }

  function card(call) {
    if (isRunning || !actions.decide) return callCard(call);
    return callCard(call, {
      allow: () => actions.decide(call, true), refuse: () => actions.decide(call, false), isKnown: actions.isKnown(call.name),
    });
  }

  function ending() {
    const note = message.note || (isEmpty(message) ? "empty" : "");
    return [
      message.error && errorLine(message.error),
      note && el("p", { className: "note", textContent: t(note) }),
      el("div", { className: "actions" }, copyButton(message),
        actions.retry && iconButton("retry", t("retry"), actions.retry),
        actions.edit && iconButton("edit", t("edit"), actions.edit),
        message.figures && el("small", { textContent: speed(message.figures) })),
    ].filter(Boolean);
  }

  update();
  return { node, update };
}

const isEmpty = ({ role, content, calls, error, reasoning }) => role === "assistant" && !content && !calls.length && !error && !reasoning;

const speed = ({ tokens, seconds }) => t("figures", tokens, seconds.toFixed(seconds < 1 ? 2 : 1));

function copyButton(message) {
  const text = () => message.content || message.reasoning || JSON.stringify(toMessages({ system: "", messages: [message] }));
  const show = (name, word) => {
    copy.replaceChildren(icon(name));
    copy.title = t(word);
    copy.setAttribute("aria-label", t(word));
  };
  const copy = iconButton("copy", t("copy"), async () => {
    if (!(await copyText(text()))) return;
    show("check", "copied");
    setTimeout(() => show("copy", "copy"), 1500);
  });
  return copy;
}
