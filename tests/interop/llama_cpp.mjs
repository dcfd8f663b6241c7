// node llama_cpp.mjs PACKAGES MODEL QUESTIONS ANSWERS: what llama.cpp makes of lines, and 64 greedy ids after prompts.
import {readFileSync, writeFileSync} from "node:fs";
import {pathToFileURL} from "node:url";

const [packages, model, questions, answers] = process.argv.slice(2);
const entry = pathToFileURL(`${packages}/node_modules/node-llama-cpp/dist/index.js`).href;
const {getLlama} = await import(entry);
const {lines, prompts} = JSON.parse(readFileSync(questions, "utf8"));

const llama = await getLlama({gpu: false, build: "never", logLevel: "error"});
const loaded = await llama.loadModel({modelPath: model});
const ids = lines.map((line) => loaded.tokenize(line, false));
const written = [];
if (prompts.length > 0) {
    const context = await loaded.createContext({contextSize: 128, threads: 1});
    const sequence = context.getSequence();
    for (const prompt of prompts) {
        await sequence.clearHistory();
        const answer = [];
        for await (const id of sequence.evaluate(prompt, {temperature: 0, yieldEogToken: true})) {
            answer.push(id);
            if (answer.length === 64) break;
        }
        written.push(answer);
    }
}
writeFileSync(answers, JSON.stringify({ids, answers: written}));
process.exit(0);
