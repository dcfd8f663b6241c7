// An answer under way: the chunks of the stream become parts of a message.

import { stream } from "./api.js";
import { newCall, toMessages } from "./store.js";

/** Fills `message`, the conversation's last, and calls `refresh` for each piece. What goes wrong is in the message.
 * fields: gives those of the request beside the messages */
export async function answer(chat, message, fields, signal, refresh) {
  const messages = toMessages({ ...chat, messages: chat.messages.slice(0, -1) });
  // Until it has ended it is unfinished, should the tab be closed meanwhile.
  message.note = "stopped";
  const began = performance.now();
  try {
    for await (const { choices, usage, model } of stream(
      "v1/chat/completions",
      { ...(await fields()), messages },
      signal,
    )) {
      message.model = model;
      if (choices[0]) take(message, choices[0]);
      if (usage) message.figures = { tokens: usage.completion_tokens, seconds: (performance.now() - began) / 1000 };
      refresh();
    }
  } catch (error) {
    if (!signal.aborted) Object.assign(message, { error: error.message, note: "" });
  }
}

/** A chunk's part of an answer. */
function take(message, { delta, logprobs, finish_reason: finished }) {
  message.content += delta.content ?? "";
  message.reasoning += delta.reasoning_content ?? "";
  for (const { index, function: called } of delta.tool_calls ?? []) {
    message.calls[index] ??= newCall();
    const call = message.calls[index];
    call.name += called.name ?? "";
    call.arguments += called.arguments ?? "";
  }
  for (const { token, logprob, top_logprobs: top } of logprobs?.content ?? []) {
    message.tokens.push([token, logprob, top.map((other) => [other.token, other.logprob])]);
  }
  if (finished) message.note = finished === "length" ? "cut" : "";
  if (message.note === "cut") message.calls = message.calls.filter(isWhole);
}

/** Can it be run, and sent again? An answer that is cut may end in the middle of a call. */
function isWhole({ arguments: json }) {
  try {
    JSON.parse(json);
    return true;
  } catch {
    return false;
  }
}
