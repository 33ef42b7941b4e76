// The AI SDK with an address and a key: `openai(...)` as it is imported, which speaks responses
// that the server stores. Run by bare.py, which dictates what the model says.

import assert from "node:assert/strict";
import { createRequire } from "node:module";
import { pathToFileURL } from "node:url";

// The packages are not beside this file.
const { resolve } = createRequire(process.env.CLIENTS + "/package.json");
const load = async (name) => import(pathToFileURL(resolve(name)).href);
const { openai } = await load("@ai-sdk/openai");
const { generateText, streamText, jsonSchema, stepCountIs, tool } = await load("ai");

for (const run of [streamText, generateText]) {
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
  const asked = {
    model: openai("default"),
    system: `You are the gardener (${run.name}).`,
    tools: { look },
    stopWhen: stepCountIs(5),
  };
  const first = { role: "user", content: "How are the beds?" };
  const result = await run({ ...asked, messages: [first] });
  assert.equal(await result.text, "All dry.");
  const steps = await result.steps;
  assert.deepEqual(steps.map((s) => s.finishReason), ["tool-calls", "tool-calls", "stop"]);
  assert.deepEqual([...beds].sort(), ["east", "north", "west"]);
  const said = await result.responseMessages;
  const next = { role: "user", content: "And the south one?" };
  const last = await run({ ...asked, messages: [first, ...said, next] });
  assert.equal(await last.text, "As I said.");
  assert.equal(beds[3], "south");
}
