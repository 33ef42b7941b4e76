// What the AI SDK needs: its openai-compatible provider, as opencode and cline use it, and its
// default one, `openai(...)`, which speaks responses that the server stores.
// Run by ai_sdk.py, which starts the server and says where it is.

import assert from "node:assert/strict";
import test from "node:test";
import { createRequire } from "node:module";
import { pathToFileURL } from "node:url";

// The packages are not beside this file.
const { resolve } = createRequire(process.env.CLIENTS + "/package.json");
const load = async (name) => import(pathToFileURL(resolve(name)).href);
const { createOpenAICompatible } = await load("@ai-sdk/openai-compatible");
const { createOpenAI } = await load("@ai-sdk/openai");
const { generateText, streamText, jsonSchema, stepCountIs, tool, Output } = await load("ai");

const root = process.env.EVERWARM_URL;

/** A model that says these replies, one for each request; without any, what it likes. */
const model = (...replies) => provider(replies)("default");

/** `options`: the provider's own; `sent`: where the bodies that it sends are noted. */
function provider(replies, options = {}, sent = []) {
  return createOpenAICompatible({
    ...options,
    name: "everwarm",
    includeUsage: true,
    ...dictated(replies, sent),
  });
}

/** An address, a key, and a fetch that says what the model is to reply. */
function dictated(replies, sent) {
  return {
    baseURL: `${root}/v1`,
    apiKey: "none",
    fetch: (url, options) => {
      const body = JSON.parse(options.body);
      sent.push(structuredClone(body));
      if (replies.length) body.everwarm = { reply: replies.shift() };
      return fetch(url, { ...options, body: JSON.stringify(body) });
    },
  };
}

const call = (name, args) =>
  `<tool_call>${JSON.stringify({ name, arguments: args })}</tool_call>`;

const beds = [];
const look = tool({
  description: "Looks at a bed.",
  inputSchema: jsonSchema({
    type: "object",
    properties: { bed: { type: "string" } },
    required: ["bed"],
  }),
  execute: async ({ bed }) => (beds.push(bed), `${bed} is dry.`),
});

test("a text comes in parts, with true usage and the reason of its end", async () => {
  const result = streamText({ model: model("One two three."), prompt: "Count." });
  const parts = [];
  for await (const part of result.textStream) parts.push(part);
  assert.ok(parts.length > 1);
  assert.equal(parts.join(""), "One two three.");
  assert.equal(await result.finishReason, "stop");
  const usage = await result.usage;
  assert.ok(usage.inputTokens > 0 && usage.outputTokens > 0);
  assert.equal(usage.totalTokens, usage.inputTokens + usage.outputTokens);
});

test("the same prompt again is told as cached", async () => {
  const ask = () => generateText({ model: model("Yes."), prompt: "Is it cached? ".repeat(20) });
  const [first, second] = [await ask(), await ask()];
  assert.equal(first.text, "Yes.");
  assert.ok(second.usage.inputTokenDetails.cacheReadTokens > first.usage.inputTokenDetails.cacheReadTokens);
});

test("reasoning is kept apart from the text", async () => {
  const result = streamText({ model: model("<think>Hm.</think>So."), prompt: "Why?" });
  const kinds = new Set();
  for await (const part of result.fullStream) kinds.add(part.type);
  assert.ok(kinds.has("reasoning-delta") && kinds.has("text-delta"));
  assert.equal(await result.reasoningText, "Hm.");
  assert.equal(await result.text, "So.");
});

for (const [name, run] of [["streamed", streamText], ["whole", generateText]]) {
  test(`tools are called, two at once, and the answer follows (${name})`, async () => {
    beds.length = 0;
    const both = call("look", { bed: "north" }) + call("look", { bed: "east" });
    const result = await run({
      model: model(`<think>Both.</think>I look.${both}`, "All dry."),
      prompt: "How are the beds?",
      tools: { look },
      stopWhen: stepCountIs(3),
    });
    assert.equal(await result.text, "All dry.");
    const steps = await result.steps;
    assert.deepEqual(steps.map((s) => s.finishReason), ["tool-calls", "stop"]);
    assert.deepEqual([...beds].sort(), ["east", "north"]);
    assert.equal(new Set(steps[0].toolCalls.map((c) => c.toolCallId)).size, 2);
    // The second step reads on from where the first ended.
    assert.ok(steps[1].usage.inputTokenDetails.cacheReadTokens > steps[0].usage.inputTokens);
  });
}

const turns = async (n) => (await (await fetch(`${root}/api/turns?limit=${n}`)).json()).turns;

for (const [name, run] of [["streamed", streamText], ["whole", generateText]]) {
  test(`the default provider loops over tools in three steps, and goes on (${name})`, async () => {
    beds.length = 0;
    const sent = [];
    const openai = createOpenAI(dictated([
      `<think>One first.</think>I look.${call("look", { bed: `north ${name}` })}`,
      `<think>Then two.</think>${call("look", { bed: "east" })}${call("look", { bed: "west" })}`,
      "All dry.",
      "As I said.",
    ], sent));
    const asked = { model: openai("default"), tools: { look }, stopWhen: stepCountIs(5) };
    const first = { role: "user", content: "How are the beds?" };
    const result = await run({ ...asked, messages: [first] });
    assert.equal(await result.text, "All dry.");
    const steps = await result.steps;
    assert.deepEqual(steps.map((s) => s.finishReason), ["tool-calls", "tool-calls", "stop"]);
    assert.deepEqual([...beds].sort(), ["east", `north ${name}`, "west"]);
    // What the model said comes back by its ids, since the server stores it.
    const kinds = sent.map((body) => body.input.filter((i) => i.type === "item_reference").length);
    assert.ok(kinds[0] === 0 && kinds[1] >= 2 && kinds[2] > kinds[1], String(kinds));
    // Reasoning included: a step reads on from where the one before ended.
    const end = (record) => record.prompt_tokens + record.completion_tokens;
    const records = (await turns(3)).reverse();
    for (const [i, record] of records.entries()) {
      assert.equal(steps[i].usage.inputTokens, record.prompt_tokens);
      if (i) assert.equal(record.cached_tokens, end(records[i - 1]));
    }
    const said = await result.responseMessages;
    const sure = { role: "user", content: "Sure?" };
    const last = await run({ ...asked, messages: [first, ...said, sure] });
    assert.equal(await last.text, "As I said.");
    assert.equal((await turns(1))[0].cached_tokens, end(records[2]));
  });
}

test("a reference to what the server no longer has is an error that names it", async () => {
  const sent = [];
  const openai = createOpenAI(dictated([], sent));
  const lost = { openai: { itemId: "msg_0000_0" } };
  const messages = [
    { role: "user", content: "Hi." },
    { role: "assistant", content: [{ type: "text", text: "Yes?", providerOptions: lost }] },
    { role: "user", content: "Go on." },
  ];
  const ask = generateText({ model: openai("default"), messages, maxRetries: 0 });
  await assert.rejects(ask, (e) => e.statusCode === 404 &&
    JSON.parse(e.responseBody).error.param === "input.1.id");
});

const water = jsonSchema({
  type: "object",
  properties: { kind: { enum: ["lake", "sea"] }, cold: { type: "boolean" } },
  required: ["kind", "cold"],
  additionalProperties: false,
});

function holds(value) {
  assert.deepEqual(Object.keys(value), ["kind", "cold"]);
  assert.ok(["lake", "sea"].includes(value.kind) && typeof value.cold === "boolean");
}

// The model says noise: what holds it is the server.
for (const [name, run] of [["streamed", streamText], ["whole", generateText]]) {
  test(`an object of a schema is what the schema says (${name})`, async () => {
    const sent = [];
    const result = run({
      model: provider([], { supportsStructuredOutputs: true }, sent)("default"),
      prompt: "Lake or sea?",
      output: Output.object({ schema: water, name: "water" }),
      maxOutputTokens: 400,
    });
    if (run === streamText) {
      let last;
      for await (const part of result.partialOutputStream) last = part;
      holds(last);
    }
    holds(await (await result).output);
    assert.equal(await (await result).finishReason, "stop");
    assert.equal(sent[0].response_format.type, "json_schema");
  });
}

test("without support for schemas any object is asked for, and comes as it was said", async () => {
  const sent = [];
  const result = await generateText({
    model: provider(['{"kind": "sea", "cold": true}'], {}, sent)("default"),
    prompt: "Lake or sea?",
    output: Output.object({ schema: water }),
  });
  assert.deepEqual(result.output, { kind: "sea", cold: true });
  assert.equal(sent[0].response_format.type, "json_object");
});

test("a schema that cannot be held is refused by name", async () => {
  const ask = generateText({
    model: provider([], { supportsStructuredOutputs: true })("default"),
    prompt: "Hm.",
    output: Output.object({ schema: jsonSchema({ type: "object", not: { required: ["a"] } }) }),
    maxRetries: 0,
  });
  await assert.rejects(ask, (e) => e.statusCode === 400 &&
    JSON.parse(e.responseBody).error.param === "response_format.json_schema.schema");
});

// Its one call ends soon: where the limit of tokens ends a reply, the SDK takes no call from it.
const soon = { everwarm: { parallel_tool_calls: false, thinking_budget: 8 } };
const pick = tool({
  description: "Picks a bed.",
  inputSchema: jsonSchema({
    type: "object",
    properties: { bed: { enum: ["north", "east"] } },
    required: ["bed"],
    additionalProperties: false,
  }),
});

for (const choice of ["required", { type: "tool", toolName: "pick" }]) {
  test(`a call that is asked for is made (${choice.type ?? choice})`, async () => {
    const result = await generateText({
      model: model(), prompt: "How is the bed?", tools: { pick },
      toolChoice: choice, maxOutputTokens: 400, providerOptions: soon,
    });
    for (const called of result.toolCalls) assert.equal(called.toolName, "pick");
    assert.ok(["north", "east"].includes(result.toolCalls[0].input.bed));
  });
}

test("a stop text ends the answer before it", async () => {
  const result = await generateText({
    model: model("One two three."), prompt: "Count.", stopSequences: ["three"],
  });
  assert.equal(result.text, "One two ");
  assert.equal(result.finishReason, "stop");
});

test("a limit of tokens is told as length", async () => {
  const result = await generateText({ model: model(), prompt: "Go on.", maxOutputTokens: 3 });
  assert.equal(result.finishReason, "length");
  assert.equal(result.usage.outputTokens, 3);
});

test("a refusal is an error with the server's words", async () => {
  const ask = generateText({ model: model(), prompt: "Hm.", temperature: -1, maxRetries: 0 });
  await assert.rejects(ask, (e) => e.statusCode === 400 && /temperature/.test(e.message));
});

test("a prompt that is too long is an error that clients know", async () => {
  const ask = generateText({ model: model(), prompt: "word ".repeat(3000), maxRetries: 0 });
  await assert.rejects(ask, (e) =>
    e.statusCode === 400 && JSON.parse(e.responseBody).error.code === "context_length_exceeded");
});

test("an abort ends the turn, and its work is kept", async () => {
  const abort = new AbortController();
  const prompt = "Tell me all of it, please. ".repeat(20);
  const result = streamText({
    model: model("word ".repeat(1200)), prompt, abortSignal: abort.signal, onError: () => {},
  });
  let n = 0;
  for await (const part of result.fullStream)
    if (part.type === "text-delta" && ++n === 5) abort.abort();
  const running = async () => (await (await fetch(`${root}/api/ps`)).json()).running.length;
  while (await running()) await new Promise((r) => setTimeout(r, 20));
  const [turn] = (await (await fetch(`${root}/api/turns?limit=1`)).json()).turns;
  assert.equal(turn.finish, "cancelled");
  const again = await generateText({ model: model("So."), prompt });
  assert.ok(again.usage.inputTokenDetails.cacheReadTokens >= again.usage.inputTokens - 1);
});
