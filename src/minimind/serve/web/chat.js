// The chat view: conversations at the side, messages, the question, the settings.

import { answer } from "./answer.js";
import { get, post } from "./api.js";
import { chatList } from "./chatlist.js";
import { composer } from "./composer.js";
import { button, errorLine, iconButton } from "./dom.js";
import { editor } from "./editor.js";
import { el } from "./elements.js";
import { messageView, systemView } from "./message.js";
import { loadSettings, requestFields, saveSettings, settingsPanel } from "./settings.js";
import { read, write } from "./storage.js";
import { decline, forgetChat, loadChat, loadChats, newChat, newMessage, saveChat, titleOf, waits } from "./store.js";
import { t } from "./words.js";

const SAVE_MS = 500;

export function mountChat(root) {
  const settings = loadSettings();
  // Conversations with an answer under way, and what ends it.
  const running = new Map();
  // Calls whose tool runs.
  const underWay = new Set();
  let chats = loadChats();
  let chat = chats.find(({ id }) => id === read("open")) ?? newChat();
  let schemas = [];
  let loading = null;
  let views = [];

  const thread = el("div", { className: "thread" });
  const spoken = el("div", { className: "unseen", "aria-live": "polite" });
  const notice = el("div", { className: "notice", role: "status" });
  const side = chatList({ open, remove, add, tell });
  const panel = settingsPanel(settings, changed, () => togglePanel(false));
  const ask = composer(settings, { send: put, stop, changed, togglePanel });
  const toSide = iconButton("menu", t("chats"), () => side.node.classList.add("open"), {
    className: "quiet icon to-side",
  });
  const closeSide = () => side.node.classList.remove("open");
  root.append(
    side.node,
    el("section", { className: "talk", on: { pointerdown: closeSide } }, toSide, thread, spoken, notice, ask.node),
    panel.node,
  );

  function tell(text = "", isError = false) {
    notice.replaceChildren(
      ...(text ? [isError ? errorLine(text) : el("p", { className: "note", textContent: text })] : []),
    );
  }

  function changed(name) {
    saveSettings(settings);
    if (name === "tokens") render();
    tell(
      name === "tokens" && settings.tokens && !chat.messages.some(({ tokens }) => tokens.length) ? t("noTokens") : "",
    );
    ask.show(running.has(chat));
  }

  function togglePanel(isOpen = panel.node.hidden) {
    panel.node.hidden = !isOpen;
    ask.setPanel(isOpen);
    if (isOpen) panel.node.querySelector("button").focus();
    else ask.focus();
  }

  /** Whether there was room. */
  function save(changedChat) {
    if (!changedChat.messages.length) return true;
    if (!chats.includes(changedChat)) chats = [changedChat, ...chats];
    const isKept = saveChat(changedChat);
    if (!isKept) tell(t("full"), true);
    return isKept;
  }

  function open(other) {
    chat = other ?? newChat();
    closeSide();
    tell();
    render();
    ask.focus();
  }

  function remove(other) {
    running.get(other)?.abort();
    running.delete(other);
    chats = chats.filter((one) => one !== other);
    forgetChat(other);
    open(other === chat ? null : chat);
  }

  /** Whether there was room for all. */
  function add(found) {
    const isKept = found.map(save).every(Boolean);
    open(found[0]);
    return isKept;
  }

  function list() {
    side.show(
      chats.sort((one, another) => another.updated - one.updated),
      chat,
    );
  }

  function render() {
    write("open", chat.id);
    list();
    views = chat.messages.map((message, index) => messageView(message, options(message, index)));
    thread.replaceChildren(
      ...(chat.hasOwnSystem ? [systemView(chat.system)] : []),
      ...(views.length ? views.map(({ node }) => node) : [welcome()]),
    );
    thread.scrollTop = thread.scrollHeight;
    ask.show(running.has(chat));
  }

  /** What is on offer for a message, the last one unless told otherwise, may have changed. */
  function renew(index = views.length - 1) {
    views[index].update(options(chat.messages[index], index));
  }

  function options(message, index) {
    const isLast = index === chat.messages.length - 1;
    const isFree = !running.has(chat);
    const isAnswer = message.role === "assistant";
    return {
      withTokens: settings.tokens,
      isRunning: isLast && isAnswer && !isFree,
      actions: {
        retry:
          isLast && isAnswer && isFree
            ? () => {
                chat.messages.pop();
                reply();
              }
            : null,
        edit: !isAnswer && isFree ? () => edit(index) : null,
        decide: isLast && isFree ? decide : null,
        isKnown: (name) => schemas.some((tool) => tool.function.name === name),
        isUnderWay: (call) => underWay.has(call),
      },
    };
  }

  function welcome() {
    const examples = ["example1", "example2", "example3", "example4"].map((key) => button(t(key), () => put(t(key))));
    return el(
      "div",
      { className: "welcome" },
      el("h1", { textContent: t("welcome") }),
      el("p", { textContent: t("welcomeText") }),
      el("div", { className: "examples" }, ...examples),
    );
  }

  /** In the place of the message; what follows it is dropped when it is sent again. */
  function edit(index) {
    const again = (content) => {
      chat.messages.splice(index);
      put(content);
    };
    const box = editor(chat.messages[index].content, again, render);
    views[index].node.replaceChildren(box.node);
    box.focus();
  }

  function put(content) {
    if (!content.trim() || running.has(chat)) return false;
    // Who goes on without an answer to a call does not want it.
    for (const call of chat.messages.at(-1)?.calls ?? []) if (call.result === null) decline(call);
    chat.messages.push(newMessage("user", content));
    chat.title ||= titleOf(chat);
    reply();
    return true;
  }

  async function reply(asked = chat) {
    const message = newMessage("assistant");
    const control = new AbortController();
    asked.updated = Date.now();
    if (!asked.hasOwnSystem) asked.system = settings.system;
    asked.messages.push(message);
    running.set(asked, control);
    tell();
    save(asked);
    if (chat === asked) render();
    if (chat === asked) ask.focus();
    spoken.textContent = t("answering");
    const fields = async () => {
      await ready();
      return { ...requestFields(settings, schemas), model: ask.model() };
    };
    await answer(asked, message, fields, control.signal, refresher(asked));
    running.delete(asked);
    if (!chats.includes(asked)) return;
    save(asked);
    if (chat !== asked) return;
    const isAtEnd = atEnd();
    for (const index of views.keys()) renew(index);
    if (isAtEnd) thread.scrollTop = thread.scrollHeight;
    ask.show(false);
    spoken.textContent = `${t("answered")}. ${message.content}`;
  }

  const atEnd = () => thread.scrollHeight - thread.scrollTop - thread.clientHeight < 80;

  /** Shows what has come, once a frame, and keeps it, twice a second. */
  function refresher(asked) {
    let savedAt = performance.now();
    let isDue = false;
    return () => {
      if (isDue) return;
      isDue = true;
      requestAnimationFrame(() => {
        isDue = false;
        if (!running.has(asked)) return;
        if (performance.now() - savedAt > SAVE_MS) {
          savedAt = performance.now();
          save(asked);
        }
        if (chat !== asked) return;
        const isAtEnd = atEnd();
        views.at(-1).update();
        if (isAtEnd) thread.scrollTop = thread.scrollHeight;
      });
    };
  }

  /** A reader's answer to a call; with the last one of a message the model goes on. */
  async function decide(call, isAllowed) {
    const asked = chat;
    if (!isAllowed) decline(call);
    else {
      underWay.add(call);
      try {
        const { content } = await post("page/tool", { name: call.name, arguments: JSON.parse(call.arguments) });
        // Unless its reader has gone on meanwhile.
        call.result ??= content;
      } catch (error) {
        tell(error.message, true);
      }
      underWay.delete(call);
    }
    save(asked);
    const last = asked.messages.at(-1);
    if (!last.calls.includes(call)) return;
    if (!waits(last)) reply(asked);
    else if (chat === asked) renew();
  }

  /** The server's models and tools are known. They are asked for once, and again after a failure. */
  function ready() {
    loading ??= Promise.all([get("v1/models"), get("page/tools")])
      .then(([models, { tools }]) => {
        ask.offer(models.data.map(({ id }) => id));
        schemas = tools;
        panel.offer(tools);
        if (chat.messages.length && !running.has(chat)) renew();
      })
      .catch((error) => {
        loading = null;
        throw error;
      });
    return loading;
  }

  function stop() {
    running.get(chat)?.abort();
  }

  addEventListener("keydown", (event) => {
    if (event.key === "Escape" && !root.hidden && !document.querySelector("dialog[open]")) stop();
  });
  // What another tab has changed.
  addEventListener("storage", ({ key }) => {
    if (!key?.startsWith("minimind.chat.")) return;
    const id = key.slice("minimind.chat.".length);
    const known = chats.find((one) => one.id === id);
    if (known && running.has(known)) return;
    const fresh = loadChat(id);
    if (known && fresh) Object.assign(known, fresh);
    else chats = fresh ? [fresh, ...chats] : chats.filter((one) => one !== known);
    if (known === chat && known) render();
    else list();
  });
  render();
  ready().catch((error) => tell(error.message, true));
  return { show: () => ask.focus() };
}
