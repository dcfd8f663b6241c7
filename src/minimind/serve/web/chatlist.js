// The conversations at the side: open one, delete one, take all out to a file and in from one.

import { button, download, icon, iconButton } from "./dom.js";
import { el } from "./elements.js";
import { exported, ImportError, imported, withoutKnown } from "./store.js";
import { t } from "./words.js";

/** actions: {open(chat or null for a new one); remove(chat); add(chats), whether all were kept; tell(text, isError)} */
export function chatList(actions) {
  const list = el("ul");
  const node = el("aside", { className: "side", "aria-label": t("chats") });
  let chats = [];
  const file = el("input", {
    type: "file",
    accept: ".jsonl,.json,application/json",
    hidden: true,
    on: { change: load },
  });
  const out = button(t("exportAll"), () => download("minimind-chats.jsonl", exported(chats), "application/jsonl"), {
    className: "quiet",
  });
  const fresh = button(t("newChat"), () => actions.open(null), { className: "new" });
  fresh.prepend(icon("plus"));
  node.append(
    fresh,
    list,
    el(
      "p",
      { className: "row" },
      out,
      button(t("importAll"), () => file.click(), { className: "quiet" }),
      file,
    ),
  );

  async function load() {
    const [picked] = file.files;
    if (!picked) return;
    try {
      const found = imported(await picked.text());
      const fresh = withoutKnown(found);
      if (!fresh.length) actions.tell(t("importedKnown"));
      else if (actions.add(fresh)) actions.tell(t("imported", fresh.length));
      else actions.tell(t("full"), true);
    } catch (error) {
      if (!(error instanceof ImportError)) throw error;
      actions.tell(t("importBad", error.line), true);
    }
    // So that the same file can be picked again.
    file.value = "";
  }

  function show(all, current) {
    chats = all;
    out.disabled = !all.length;
    list.replaceChildren(
      ...all.map((chat) =>
        el(
          "li",
          { className: chat === current ? "current" : "" },
          button(chat.title || "…", () => actions.open(chat), {
            className: "title",
            dir: "auto",
            ...(chat === current ? { "aria-current": "true" } : {}),
          }),
          iconButton("remove", t("remove"), () => confirm(t("removeAsk")) && actions.remove(chat)),
        ),
      ),
    );
    if (!all.length) list.append(el("li", {}, el("small", { textContent: t("noChats") })));
  }

  return { node, show };
}
