// Vercel's AI SDK with its provider for OpenAI-compatible servers.

import assert from "node:assert/strict";
import { randomUUID } from "node:crypto";
import { createOpenAICompatible } from "@ai-sdk/openai-compatible";
import { APICallError, Output, generateText, isStepCount, streamText, tool } from "ai";
import { z } from "zod";
import { KEY, MODEL, SAMPLES, URL, failure, feature, run } from "./checklist.mjs";

const settings = {
  name: "caravan",
  baseURL: `${URL}/v1`,
  apiKey: KEY,
  includeUsage: true,
  supportsStructuredOutputs: true,
};
const caravan = createOpenAICompatible(settings);
const model = caravan.chatModel(MODEL);
const Weather = z.object({ city: z.string(), temperature_c: z.number().int() });
const WEATHER = { city: "Paris", temperature_c: 21 };
const tools = {
  get_weather: tool({ inputSchema: z.object({ city: z.string() }) }),
  get_time: tool({ inputSchema: z.object({ zone: z.string() }) }),
};
const PARIS = ["get_weather", { city: "Paris" }];
const NOW = ["get_time", { zone: "Europe/Paris" }];

const chat = (prompt, fields = {}) => generateText({ model, prompt, maxRetries: 0, ...fields });
const streamed = (prompt, fields = {}) =>
  streamText({ model, prompt, maxRetries: 0, onError: () => {}, ...fields });
const calls = (result) => result.toolCalls.map((call) => [call.toolName, call.input]);
const code = (error) => JSON.parse(error.responseBody).error.code;

feature("chat", async () => {
  const { text, finishReason, usage } = await chat("Grüße 👋");
  assert.deepEqual([text, finishReason], ["You said: Grüße 👋", "stop"]);
  assert.equal(usage.totalTokens, usage.inputTokens + usage.outputTokens);
});

feature("roles", async () => {
  const { text } = await chat("Show me the system message.", { instructions: "Be kind." });
  assert.equal(text, "I was told: Be kind.");
});

feature("stream", async () => {
  const result = streamed("Grüße 👋");
  const parts = [];
  for await (const part of result.textStream) parts.push(part);
  assert.equal(parts.join(""), "You said: Grüße 👋");
  assert.ok(parts.length > 5);
  assert.equal(await result.finishReason, "stop");
  assert.ok((await result.usage).outputTokens > 5);
});

feature("stop", async () => {
  const stopped = await chat("count", { stopSequences: [" four"] });
  assert.deepEqual([stopped.text, stopped.finishReason], ["one two three", "stop"]);
  const cut = await chat("count", { maxOutputTokens: 7 });
  assert.deepEqual([cut.text, cut.finishReason], ["one two", "length"]);
});

feature("seed", async () => {
  assert.equal((await chat("The seed?", { seed: 7 })).text, "The seed is 7.");
});

feature("image", async () => {
  const content = [
    { type: "text", text: "What is this?" },
    { type: "image", image: SAMPLES.picture },
  ];
  const messages = [{ role: "user", content }];
  assert.equal((await generateText({ model, messages, maxRetries: 0 })).text, "Pictures: 1.");
});

feature("tools_auto", async () => {
  const called = await chat("How is the weather?", { tools });
  assert.deepEqual([calls(called), called.finishReason], [[PARIS], "tool-calls"]);
  const other = await chat("Hello", { tools });
  assert.deepEqual([calls(other), other.text], [[], "You said: Hello"]);
});

feature("tools_pythonic", async () => {
  assert.deepEqual(calls(await chat("The weather, pythonic", { tools })), [PARIS]);
});

feature("tools_required", async () => {
  assert.deepEqual(calls(await chat("Hello", { tools, toolChoice: "required" })), [PARIS]);
});

feature("tools_named", async () => {
  const toolChoice = { type: "tool", toolName: "get_time" };
  assert.deepEqual(calls(await chat("How is the weather?", { tools, toolChoice })), [NOW]);
});

feature("tools_none", async () => {
  const result = await chat("How is the weather?", { tools, toolChoice: "none" });
  assert.deepEqual(calls(result), []);
  assert.ok(result.text);
});

feature("tools_parallel", async () => {
  assert.deepEqual(calls(await chat("The weather and the time?", { tools })), [PARIS, NOW]);
});

feature("tools_strict", async () => {
  const report_weather = tool({ inputSchema: Weather, strict: true });
  const result = await chat("Report the weather", { tools: { report_weather } });
  assert.deepEqual(calls(result), [["report_weather", WEATHER]]);
});

feature("tools_stream", async () => {
  const result = streamed("The weather and the time?", { tools });
  let parts = 0;
  for await (const part of result.fullStream) parts += part.type === "tool-input-delta";
  const found = (await result.toolCalls).map((call) => [call.toolName, call.input]);
  assert.deepEqual([found, await result.finishReason], [[PARIS, NOW], "tool-calls"]);
  assert.ok(parts > 4, `${parts}`);
});

feature("tools_results", async () => {
  const get_weather = tool({
    inputSchema: z.object({ city: z.string() }),
    execute: ({ city }) => `sunny in ${city}`,
  });
  const fields = { tools: { get_weather }, stopWhen: isStepCount(3) };
  const { text, steps } = await chat("How is the weather?", fields);
  assert.deepEqual([text, steps.length], ["The result is sunny in Paris.", 2]);
});

feature("json_object", async () => {
  assert.deepEqual((await chat("Answer in json", { output: Output.json() })).output, WEATHER);
});

feature("json_schema", async () => {
  const output = Output.object({ schema: Weather });
  assert.deepEqual((await chat("How warm is it?", { output })).output, WEATHER);
});

feature("json_schema_stream", async () => {
  const result = streamed("How warm is it?", { output: Output.object({ schema: Weather }) });
  const partial = [];
  for await (const value of result.partialOutputStream) partial.push(value);
  assert.deepEqual([partial.at(-1), await result.output], [WEATHER, WEATHER]);
  assert.ok(partial.length > 1);
});

feature("completions", async () => {
  const completion = caravan.completionModel(MODEL);
  const fields = { model: completion, maxRetries: 0, maxOutputTokens: 200 };
  // The SDK writes a prompt for models that only complete: "user:\n...\n\nassistant:\n".
  const { text } = await generateText({ ...fields, prompt: "count" });
  assert.equal(text, "one two three four five six seven eight nine ten");
});

feature("completions_stream", async () => {
  const completion = caravan.completionModel(MODEL);
  const result = streamed("count", { model: completion, maxOutputTokens: 200 });
  let text = "";
  for await (const part of result.textStream) text += part;
  assert.equal(text, "one two three four five six seven eight nine ten");
});

feature("error_model", async () => {
  const call = () => chat("Hello", { model: caravan.chatModel("x") });
  const error = await failure(APICallError, call);
  assert.deepEqual([error.statusCode, code(error)], [404, "model_not_found"]);
});

feature("error_parameter", async () => {
  const error = await failure(APICallError, () => chat("Hello", { temperature: 3 }));
  assert.deepEqual([error.statusCode, code(error)], [400, "invalid_value"]);
  assert.match(error.message, /temperature/);
});

feature("error_context", async () => {
  const error = await failure(APICallError, () => chat("long ".repeat(5000)));
  assert.equal(code(error), "context_length_exceeded");
});

feature("error_key", async () => {
  const stranger = createOpenAICompatible({ ...settings, apiKey: "wrong" }).chatModel(MODEL);
  const error = await failure(APICallError, () => chat("Hello", { model: stranger }));
  assert.deepEqual([error.statusCode, code(error)], [401, "invalid_api_key"]);
});

feature("error_stream", async () => {
  const errors = [];
  for await (const part of streamed("die").fullStream) {
    if (part.type === "error") errors.push(part.error.message);
  }
  assert.deepEqual(errors, ["The engine has ended."]);
  const seen = [];
  const result = streamed("die", { onError: ({ error }) => seen.push(error.message) });
  let text = "";
  for await (const part of result.textStream) text += part;
  assert.deepEqual([text, seen], ["You said: ", errors]);
  return "`fullStream` has the error, and `onError` gets it; `textStream` just ends";
});

feature("retries", async () => {
  const error = await failure(APICallError, () => chat(`busy ${randomUUID()}`));
  assert.deepEqual([error.isRetryable, code(error)], [true, "overloaded"]);
  const text = `busy ${randomUUID()}`;
  assert.equal((await chat(text, { maxRetries: 1 })).text, `You said: ${text}`);
});

feature("request_id", async () => {
  const { response } = await chat("Hello", { headers: { "x-request-id": "mine" } });
  assert.equal(response.headers["x-request-id"], "mine");
});

feature("timeout", async () => {
  await assert.rejects(chat("slow", { timeout: 500 }), { name: "TimeoutError" });
  assert.equal((await chat("Hello")).text, "You said: Hello");
});

await run();
