// One message: its thinking, its text or tokens, its calls. `update` shows what has come since, or what is on offer now,
// in place, so that what a reader has unfolded or selected stays.

import { callCard } from "./calls.js";
import { copyText, errorLine, icon, iconButton, refill } from "./dom.js";
import { el } from "./elements.js";
import { toMessages } from "./store.js";
import { rich } from "./text.js";
import { tokenView } from "./tokens.js";
import { t } from "./words.js";

/** options: {actions, isRunning, withTokens}; `update` may bring new ones
 * actions: {retry, edit, decide(call, isAllowed), isKnown(name), isUnderWay(call)}, the first three null where not on offer */
export function messageView(message, options) {
  const summary = el("summary");
  const thought = el("div", { className: "text", dir: "auto" });
  const thinking = el("details", { className: "thinking" }, summary, thought);
  const body = el("div", { className: "body text", dir: "auto" });
  const calls = el("div");
  const foot = el("div");
  const node = el(
    "article",
    { className: `message ${message.role}`, "aria-label": t(message.role) },
    thinking,
    body,
    calls,
    foot,
  );
  const tokens = tokenView(message.tokens);

  function update(changed = options) {
    options = changed;
    const { isRunning, withTokens } = options;
    const hasTokens = withTokens && message.tokens.length > 0;
    thinking.hidden = !message.reasoning || hasTokens;
    summary.textContent = t(isRunning && !message.content && !message.calls.length ? "thinkingNow" : "thinking");
    refill(thought, plain(message.reasoning));
    if (!hasTokens) refill(body, message.role === "user" ? plain(message.content) : rich(message.content));
    else {
      tokens.update();
      if (tokens.node.parentNode !== body) body.replaceChildren(tokens.node);
    }
    body.hidden = !body.childNodes.length;
    node.classList.toggle("waiting", isRunning && !message.content && !message.reasoning && !message.calls.length);
    calls.replaceChildren(...message.calls.map(card));
    foot.replaceChildren(...(isRunning ? [] : ending()));
  }

  function card(call) {
    const { actions, isRunning } = options;
    if (isRunning || !actions.decide) return callCard(call);
    return callCard(call, {
      allow: () => actions.decide(call, true),
      refuse: () => actions.decide(call, false),
      isKnown: actions.isKnown(call.name),
      isUnderWay: actions.isUnderWay(call),
    });
  }

  function ending() {
    const { actions } = options;
    const note = message.note || (isEmpty(message) ? "empty" : "");
    return [
      message.error && errorLine(message.error),
      note && el("p", { className: "note", textContent: t(note) }),
      el(
        "div",
        { className: "actions" },
        copyButton(message),
        actions.retry && iconButton("retry", t("retry"), actions.retry),
        actions.edit && iconButton("edit", t("edit"), actions.edit),
        message.figures &&
          el("small", { textContent: [message.model, speed(message.figures)].filter(Boolean).join(" · ") }),
      ),
    ].filter(Boolean);
  }

  update();
  return { node, update };
}

/** A conversation's own system message. The settings' has no effect there, so it is shown. */
export const systemView = (text) =>
  el(
    "details",
    { className: "thinking" },
    el("summary", { textContent: t("ownSystem") }),
    el("div", { className: "text", dir: "auto", textContent: text }),
  );

const plain = (text) => (text ? [new Text(text)] : []);

const isEmpty = ({ role, content, calls, error, reasoning }) =>
  role === "assistant" && !content && !calls.length && !error && !reasoning;

const speed = ({ tokens, seconds }) => t("figures", tokens, seconds.toFixed(seconds < 1 ? 2 : 1));

function copyButton(message) {
  const text = () =>
    message.content || message.reasoning || JSON.stringify(toMessages({ system: "", messages: [message] }));
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
