// node llama_cpp.mjs PACKAGES MODEL THREADS: for each line {"prompts": [[id]], "new": n} on standard input, the number
// of tokens drawn, on standard output. All prompts are sequences of one context, evaluated together, greedily.
import {createInterface} from "node:readline";
import {pathToFileURL} from "node:url";

const [packages, model, threads] = process.argv.slice(2);
const entry = pathToFileURL(`${packages}/node_modules/node-llama-cpp/dist/index.js`).href;
const {getLlama, TokenBias} = await import(entry);
const llama = await getLlama({gpu: false, build: "never", logLevel: "error", maxThreads: Number(threads)});
const loaded = await llama.loadModel({modelPath: model});
// Every row gets all its tokens: what ends a text is never drawn.
const tokenBias = new TokenBias(loaded.tokenizer);
for (const id of [0, 2]) tokenBias.set(id, "never");
let context, rows = 0;

console.log("ready");
for await (const line of createInterface({input: process.stdin})) {
    const {prompts, new: count} = JSON.parse(line);
    if (prompts.length !== rows) {
        await context?.dispose();
        rows = prompts.length;
        context = await loaded.createContext({
            sequences: rows, contextSize: 256, batchSize: Math.max(512, 64 * rows), threads: Number(threads)
        });
    }
    const sequences = prompts.map(() => context.getSequence());
    const drawn = await Promise.all(prompts.map(async (prompt, row) => {
        let number = 0;
        for await (const _ of sequences[row].evaluate(prompt, {temperature: 0, tokenBias, yieldEogToken: true}))
            if (++number === count) break;
        return number;
    }));
    for (const sequence of sequences) await sequence.dispose();
    console.log(drawn.reduce((sum, number) => sum + number, 0));
}
process.exit(0);
