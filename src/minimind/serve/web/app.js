// The frame: views by the address's fragment, theme, language, key.

import { onKeyWanted, setKey } from "./api.js";
import { mountChat } from "./chat.js";
import { icon } from "./dom.js";
import { el } from "./elements.js";
import { read, write } from "./storage.js";
import { mountTokenizer } from "./tokenizer.js";
import { mountTraining } from "./training.js";
import { language, switchLanguage, t } from "./words.js";

const VIEWS = { chat: mountChat, training: mountTraining, tokenizer: mountTokenizer };
const $ = (id) => document.getElementById(id);
// A view is made on its first visit and then only hidden, so that an answer goes on while its reader looks elsewhere.
const mounted = {};
let current = null;

function show() {
  const name = Object.hasOwn(VIEWS, location.hash.slice(1)) ? location.hash.slice(1) : "chat";
  for (const link of document.querySelectorAll("nav a")) {
    if (link.hash === `#${name}`) link.setAttribute("aria-current", "page");
    else link.removeAttribute("aria-current");
  }
  current?.hide?.();
  for (const other of document.querySelector("main").children) other.hidden = true;
  if (mounted[name]) mounted[name].root.hidden = false;
  else {
    const root = el("section", { className: `view ${name}`, "aria-label": t(name) });
    document.querySelector("main").append(root);
    mounted[name] = { root, ...VIEWS[name](root) };
  }
  document.title = `${t(name)} · minimind`;
  current = mounted[name];
  current.show?.();
}

const systemTheme = matchMedia("(prefers-color-scheme: dark)");

/** The reader's choice, else the system's. */
function isDark() {
  const chosen = read("theme");
  return chosen ? chosen === "dark" : systemTheme.matches;
}

function paint() {
  document.documentElement.dataset.theme = isDark() ? "dark" : "light";
  const label = t(isDark() ? "toLight" : "toDark");
  $("theme").replaceChildren(icon(isDark() ? "sun" : "moon"));
  $("theme").title = label;
  $("theme").setAttribute("aria-label", label);
}

/** Resolves to whether a key was given. */
function askForKey(isWrong) {
  const dialog = $("key-dialog");
  $("key").value = "";
  $("key-wrong").hidden = !isWrong;
  dialog.returnValue = "";
  dialog.showModal();
  return new Promise((resolve) => {
    const save = () => {
      if (!$("key").value.trim()) return;
      if (setKey($("key").value.trim())) dialog.close("saved");
      else $("key-wrong").hidden = false;
    };
    dialog.onclose = () => resolve(dialog.returnValue === "saved");
    $("key-cancel").onclick = () => dialog.close("");
    $("key-save").onclick = save;
    $("key").onkeydown = (event) => {
      if (event.key !== "Enter") return;
      event.preventDefault();
      save();
    };
  });
}

document.documentElement.lang = language;
for (const node of document.querySelectorAll("[data-t]")) node.textContent = t(node.dataset.t);
$("key").setAttribute("aria-label", t("key"));
document.querySelector("nav").setAttribute("aria-label", t("views"));
$("language").textContent = language === "zh" ? "EN" : "中文";
$("language").lang = language === "zh" ? "en" : "zh";
$("language").onclick = switchLanguage;
$("theme").onclick = () => {
  write("theme", isDark() ? "light" : "dark");
  paint();
};
systemTheme.addEventListener("change", paint);
onKeyWanted(askForKey);
paint();
addEventListener("hashchange", show);
show();
