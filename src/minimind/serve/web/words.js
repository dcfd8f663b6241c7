// The page's words in English and Chinese.

import { read, write } from "./storage.js";

const WORDS = {
  chat: ["Chat", "对话"], training: ["Training", "训练"], tokenizer: ["Tokenizer", "分词器"],
  toDark: ["Dark", "深色"], toLight: ["Light", "浅色"], views: ["Views", "视图"],
  keyTitle: ["This server wants a key", "此服务需要密钥"],
  keyText: ["It stays in this browser tab and goes to this server only.", "密钥只保存在此标签页，只发送给此服务。"],
  keyWrong: ["That key was not accepted.", "密钥不正确。"], key: ["Key", "密钥"],
  save: ["Save", "保存"], cancel: ["Cancel", "取消"], close: ["Close", "关闭"],
  offline: ["The server cannot be reached.", "无法连接服务。"],
  brokenOff: ["The connection broke before the answer was complete.", "连接中断，回答不完整。"],

  send: ["Send", "发送"], stop: ["Stop", "停止"], retry: ["Answer again", "重新回答"], edit: ["Edit", "编辑"],
  copy: ["Copy", "复制"], copied: ["Copied", "已复制"], editHint: ["What follows is replaced.", "之后的内容会被替换。"],
  newChat: ["New chat", "新对话"], chats: ["Conversations", "对话列表"], noChats: ["Conversations stay in this browser.", "对话只保存在此浏览器中。"],
  exportAll: ["Export", "导出"], importAll: ["Import", "导入"], remove: ["Delete", "删除"],
  removeAsk: ["Delete this conversation?", "删除此对话？"],
  ask: ["Ask something", "输入问题"], model: ["Model", "模型"],
  welcome: ["What would you like to ask?", "想问点什么？"],
  welcomeText: ["The model runs on this server. Conversations stay in this browser.", "模型在此服务上运行，对话只保存在此浏览器中。"],
  example1: ["Who are you?", "你是谁？"],
  example2: ["What is the capital of France?", "中国的首都是哪里？"],
  example3: ["What is 12 + 30?", "12 + 30 等于多少？"],
  example4: ["Which is larger, 35 or 82?", "写一句关于春天的话。"],
  thinking: ["Thinking", "思考过程"], thinkingNow: ["Thinking…", "思考中…"], think: ["Think", "思考"],
  tokens: ["Tokens", "词元"], tokensHint: ["Show each token with its probability", "显示每个词元及其概率"],
  thinkHint: ["Let the model reason before it answers", "让模型先思考再回答"],
  noTokens: ["Answers from now on show their tokens.", "之后的回答会显示词元。"],
  user: ["You", "你"], assistant: ["Answer", "回答"], answering: ["Answering", "正在回答"], answered: ["Answer complete", "回答完成"],
  stopped: ["Stopped", "已停止"], cut: ["Cut off at the longest answer", "已达最长回答"],
  empty: ["The model said nothing.", "模型没有回答。"],
  figures: ["{0} tokens in {1} s", "{0} 个词元，{1} 秒"],
  full: ["This browser's storage is full; export and delete some conversations.", "浏览器存储已满；请导出并删除一些对话。"],
  importBad: ["Nothing was imported: line {0} is not a conversation.", "未导入任何内容：第 {0} 行不是对话。"],
  imported: ["Conversations imported: {0}", "已导入 {0} 个对话"],

  settings: ["Settings", "设置"], sampling: ["Sampling", "采样"], samplingHint: ["Empty: the server's own.", "留空则使用服务器默认值。"],
  temperature: ["Temperature", "温度"], top_p: ["Top p", "Top p"], top_k: ["Top k", "Top k"], min_p: ["Min p", "Min p"],
  repetition_penalty: ["Repetition penalty", "重复惩罚"], max_tokens: ["Longest answer", "最长回答"], seed: ["Seed", "随机种子"],
  standard: ["default", "默认"], system: ["System message", "系统消息"],
  ownSystem: ["This conversation's own system message", "此对话自带的系统消息"],
  tools: ["Tools", "工具"], toolsHint: ["What the model may ask for. You are asked before each call.", "模型可以请求的工具。每次调用前都会询问你。"],
  call: ["The model wants to use", "模型想使用"], called: ["Tool", "工具"], result: ["Result", "结果"],
  run: ["Run", "运行"], decline: ["Decline", "拒绝"], declined: ["You declined this call.", "你拒绝了此调用。"],unknownTool: ["This server has no such tool.", "此服务没有这个工具。"],
  probability: ["Probability", "概率"], tokenView: ["Tokens; the arrow keys move from one to the next", "词元；用方向键移动"],

  runs: ["Runs", "训练"], filter: ["Filter", "筛选"], axis: ["Horizontal axis", "横轴"], log: ["Logarithmic", "对数"],
  noRuns: ["There are no runs in this folder yet.", "此目录中还没有训练。"],
  noFolder: ["Start the server with the folder of your runs, and they appear here, also while they train:", "启动服务时指定训练目录，训练就会显示在这里，训练中也会实时更新："],
  pickRuns: ["Choose one or more runs.", "请选择一个或多个训练。"], noRows: ["Nothing is logged yet.", "还没有记录。"],
  running: ["training", "训练中"], finished: ["finished", "已完成"], unfinished: ["unfinished", "未完成"],
  loss: ["Loss", "损失"], valid_loss: ["Validation loss", "验证损失"], bits_per_byte: ["Bits per byte", "每字节比特"],
  tokens_per_second: ["Tokens per second", "每秒词元"], learning_rate: ["Learning rate", "学习率"],
  gradient_norm: ["Gradient norm", "梯度范数"], samples: ["Samples", "样例"], step: ["Step", "步"],
  at_step: ["step {0}", "第 {0} 步"], at_tokens: ["{0} tokens", "{0} 个词元"], at_seconds: ["{0}", "{0}"],
  axis_step: ["Steps", "步数"], axis_tokens: ["Tokens", "词元"], axis_seconds: ["Time", "时间"], seconds: ["Time", "时间"],
  more: ["More measures", "更多指标"], runName: ["Run", "训练"], broken: ["Lines that could not be read: {0}", "无法读取的行：{0}"],

  typeText: ["Text", "文本"], compare: ["Compare with", "对比"], none: ["nothing", "无"], of: ["Tokenizer", "分词器"],
  tokenizerText: [
    "How a model reads text: as pieces of its vocabulary, each with a number. A part of a character is shown as its bytes.",
    "模型如何读取文本：词表中的片段，每个有一个编号。不完整的字符以字节显示。",
  ],
  sampleText: ["Hello, world! 你好，世界。 1 + 1 = 2 🙂", "你好，世界！Hello, world. 1 + 1 = 2 🙂"],
  numTokens: ["tokens", "词元"], characters: ["characters", "字符"], numBytes: ["bytes", "字节"], bytesPer: ["bytes per token", "字节/词元"],
  vocabulary: ["vocabulary", "词表"], same: ["Both are the same tokenizer.", "两者是同一个分词器。"],
  served: ["Served models", "当前服务的模型"], ofRuns: ["In the runs folder", "训练目录"],
  first: ["The first {0} are shown.", "仅显示前 {0} 个。"],
};

const chosen = read("language");
export const language = ["en", "zh"].includes(chosen) ? chosen : navigator.language.startsWith("zh") ? "zh" : "en";

/** The word, with `{0}` and so on filled in; what has none is called by its key. */
export function t(key, ...values) {
  const word = Object.hasOwn(WORDS, key) ? WORDS[key][language === "zh" ? 1 : 0] : key;
  return word.replace(/\{(\d)\}/g, (_, index) => values[index]);
}

/** The other language, as the whole page anew. */
export function switchLanguage() {
  write("language", language === "zh" ? "en" : "zh");
  location.reload();
}
