// Conversations: how they are kept in this browser, sent to the server, and written to a file.
//
// A conversation: {id, title, updated, system, hasOwnSystem, messages}, each under a name of its own, so that two tabs do
// not overwrite one another's. One that was imported with a system message keeps it; the others take the settings'.
// A message: {role, content} of the user, and of the assistant also
//   model, reasoning, error, note: "" | "stopped" | "cut", figures: null | {tokens, seconds}
//   calls:   [{name, arguments, result, declined}], arguments as JSON text, result null until it is there
//   tokens:  [[text, logprob, [[text, logprob], ...]], ...]
// What is read is rebuilt field by field: it may be anyone's file.

import { forget, names, read, write } from "./storage.js";

const DECLINED = JSON.stringify({ error: "the user declined this call" });

const text = (value, most = 1e6) => (typeof value === "string" ? value.slice(0, most) : "");
const list = (value) => (Array.isArray(value) ? value : []);
const number = (value) => (Number.isFinite(value) ? value : 0);

export const newMessage = (role, content = "") => ({
  role,
  content,
  model: "",
  reasoning: "",
  calls: [],
  tokens: [],
  note: "",
  error: "",
  figures: null,
});

export const newCall = (name = "", args = "") => ({ name, arguments: args, result: null, declined: false });

// crypto.randomUUID is missing where the page comes over plain HTTP from another machine.
const newId = () => Array.from(crypto.getRandomValues(new Uint32Array(4)), (part) => part.toString(36)).join("");

export const newChat = () => ({ id: newId(), title: "", updated: 0, system: "", hasOwnSystem: false, messages: [] });

export function loadChats() {
  const chats = names("chat.")
    .map((name) => readChat(read(name)))
    .filter(Boolean);
  return chats.sort((one, other) => other.updated - one.updated);
}

export const loadChat = (id) => readChat(read(`chat.${id}`));

/** Whether there was room; the tokens of its answers are given up first. */
export function saveChat(chat) {
  const bare = () => ({ ...chat, messages: chat.messages.map((message) => ({ ...message, tokens: [] })) });
  return write(`chat.${chat.id}`, chat) || write(`chat.${chat.id}`, bare());
}

export const forgetChat = (chat) => forget(`chat.${chat.id}`);

function readChat(value) {
  const messages = list(value?.messages).map(readMessage).filter(Boolean);
  if (!messages.length) return null;
  return {
    id: text(value.id, 64) || newId(),
    title: text(value.title, 200),
    updated: number(value.updated),
    system: text(value.system),
    hasOwnSystem: value.hasOwnSystem === true,
    messages,
  };
}

function readMessage(value) {
  if (!["user", "assistant"].includes(value?.role)) return null;
  return {
    role: value.role,
    content: text(value.content),
    model: text(value.model, 200),
    reasoning: text(value.reasoning),
    error: text(value.error, 4000),
    note: ["stopped", "cut"].includes(value.note) ? value.note : "",
    figures: value.figures ? { tokens: number(value.figures.tokens), seconds: number(value.figures.seconds) } : null,
    tokens: list(value.tokens).map(readToken),
    calls: list(value.calls).map((call) => ({
      ...newCall(text(call?.name, 200), text(call?.arguments)),
      result: typeof call?.result === "string" ? call.result : null,
      declined: call?.declined === true,
    })),
  };
}

function readToken(value) {
  const [spelling, logprob, top] = list(value);
  return [
    text(spelling, 1000),
    number(logprob),
    list(top)
      .slice(0, 20)
      .map((pair) => [text(list(pair)[0], 1000), number(list(pair)[1])]),
  ];
}

export function decline(call) {
  Object.assign(call, { declined: true, result: DECLINED });
}

export const waits = (message) => message.calls.some((call) => call.result === null);

/** The messages as OpenAI's API has them; an answer that is empty, such as one that failed, is left out. */
export function toMessages({ system, messages }) {
  const rows = system.trim() ? [{ role: "system", content: system }] : [];
  for (const { role, content, reasoning, calls } of messages) {
    if (role === "assistant" && !content && !calls.length) continue;
    rows.push({
      role,
      content,
      ...(reasoning ? { reasoning_content: reasoning } : {}),
      ...(calls.length
        ? {
            tool_calls: calls.map((call, index) => ({
              id: `call_${index}`,
              type: "function",
              function: { name: call.name, arguments: call.arguments },
            })),
          }
        : {}),
    });
    for (const [index, { result }] of calls.entries()) {
      if (result !== null) rows.push({ role: "tool", tool_call_id: `call_${index}`, content: result });
    }
  }
  return rows;
}

/** One conversation a line, in the form in which `minimind prepare` reads chats. */
export const exported = (chats) =>
  chats.map((chat) => `${JSON.stringify({ title: chat.title, messages: toMessages(chat) })}\n`).join("");

export class ImportError extends Error {
  constructor(line) {
    super(`line ${line}`);
    this.line = line;
  }
}

/** Those that say something that none of the kept ones says. */
export function withoutKnown(chats) {
  const known = new Set(loadChats().map((chat) => JSON.stringify(toMessages(chat))));
  return chats.filter((chat) => {
    const said = JSON.stringify(toMessages(chat));
    if (known.has(said)) return false;
    known.add(said);
    return true;
  });
}

/** The conversations of such a file, as new ones; all of them or an ImportError. */
export function imported(content) {
  const lines = content.replace(/^\uFEFF/, "").split("\n");
  const chats = [];
  lines.forEach((line, index) => {
    if (!line.trim()) return;
    try {
      const row = JSON.parse(line);
      chats.push({ ...fromMessages(row.messages ?? row.conversations), title: text(row.title, 200) });
    } catch {
      throw new ImportError(index + 1);
    }
  });
  if (!chats.length) throw new ImportError(1);
  return chats.map((chat, index) => ({ ...chat, title: chat.title || titleOf(chat), updated: Date.now() - index }));
}

export const titleOf = ({ messages }) => messages[0].content.trim().replaceAll(/\s+/g, " ").slice(0, 80);

/** Errors: TypeError for what is no conversation */
function fromMessages(rows) {
  const chat = newChat();
  for (const row of rows) {
    const content = row.content ?? "";
    if (typeof content !== "string") throw new TypeError("content");
    if (row.role === "system") chat.system = content;
    else if (row.role === "tool") answerOf(chat).result = content;
    else if (["user", "assistant"].includes(row.role)) {
      const calls = (row.tool_calls ?? []).map(({ function: called }) =>
        newCall(String(called.name), toJson(called.arguments)),
      );
      chat.messages.push({ ...newMessage(row.role, content), reasoning: text(row.reasoning_content), calls });
    } else throw new TypeError("role");
  }
  for (const call of chat.messages.flatMap(({ calls }) => calls)) call.declined = call.result === DECLINED;
  if (!chat.messages.length) throw new TypeError("messages");
  chat.hasOwnSystem = Boolean(chat.system.trim());
  return chat;
}

const toJson = (value) => (typeof value === "string" ? value : JSON.stringify(value ?? {}));

/** The call that a tool's message answers: the first without a result. */
function answerOf(chat) {
  const call = chat.messages.at(-1)?.calls.find(({ result }) => result === null);
  if (!call) throw new TypeError("tool");
  return call;
}
