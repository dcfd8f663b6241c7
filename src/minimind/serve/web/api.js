// Requests to the server that this page came from. Its errors are told in its own words.

import { t } from "./words.js";

export class ApiError extends Error {
  constructor(status, message) {
    super(message);
    this.status = status;
  }
}

// Until the frame has a dialog. Resolves to whether a key was given.
let askForKey = async () => false;
let asking = null;

export function onKeyWanted(ask) {
  askForKey = ask;
}

/** One dialog for all requests that were refused meanwhile. */
function wantKey(isWrong) {
  asking ??= askForKey(isWrong).finally(() => (asking = null));
  return asking;
}

// Only for this tab: a key is no setting.
const KEY = "minimind.key";
let key = attempt(() => sessionStorage.getItem(KEY));

/** Whether it may be a key: a header has only printable ASCII, and `fetch` refuses all else. */
export function setKey(given) {
  if (!/^[ -~]+$/.test(given)) return false;
  key = given;
  attempt(() => sessionStorage.setItem(KEY, given));
  return true;
}

/** Storage may be blocked. */
function attempt(action) {
  try {
    return action() ?? "";
  } catch {
    return "";
  }
}

async function request(path, options = {}) {
  const shown = key;
  const headers = options.body ? { "Content-Type": "application/json" } : {};
  if (shown) headers.Authorization = `Bearer ${shown}`;
  let reply;
  try {
    reply = await fetch(path, { ...options, headers, cache: "no-store" });
  } catch (error) {
    throw error.name === "AbortError" ? error : new ApiError(0, t("offline"));
  }
  if (reply.status === 401) {
    // Another request may have got the key while this one was under way.
    if (shown !== key || (await wantKey(Boolean(shown)))) return request(path, options);
    throw new ApiError(401, t("keyTitle"));
  }
  if (!reply.ok) throw new ApiError(reply.status, await message(reply));
  return reply;
}

async function message(reply) {
  const text = await reply.text();
  try {
    return String(JSON.parse(text).error.message);
  } catch {
    return `HTTP ${reply.status}`;
  }
}

export const get = async (path, signal) => (await request(path, { signal })).json();

export const post = async (path, body, signal) =>
  (await request(path, { method: "POST", body: JSON.stringify(body), signal })).json();

/** The chunks of a streamed answer, as they come. An answer that breaks off is an error. */
export async function* stream(path, body, signal) {
  const reply = await request(path, { method: "POST", body: JSON.stringify({ ...body, stream: true }), signal });
  const reader = reply.body.pipeThrough(new TextDecoderStream()).getReader();
  let rest = "";
  for (;;) {
    const { value, done } = await read(reader);
    if (done) throw new ApiError(0, t("brokenOff"));
    const events = (rest + value).split("\n\n");
    rest = events.pop();
    for (const event of events) {
      if (event === "data: [DONE]") return;
      const chunk = JSON.parse(event.slice("data: ".length));
      if (chunk.error) throw new ApiError(500, String(chunk.error.message));
      yield chunk;
    }
  }
}

async function read(reader) {
  try {
    return await reader.read();
  } catch (error) {
    throw error.name === "AbortError" ? error : new ApiError(0, t("brokenOff"));
  }
}
