// OpenAI's SDK for Node.

import assert from "node:assert/strict";
import { randomUUID } from "node:crypto";
import OpenAI from "openai";
import { zodFunction, zodResponseFormat } from "openai/helpers/zod";
import { z } from "zod";
import { KEY, MODEL, SAMPLES, TIMEOUT_MS, URL, failure, feature, run, said } from "./checklist.mjs";

const options = { baseURL: `${URL}/v1`, apiKey: KEY, maxRetries: 0, timeout: TIMEOUT_MS };
const client = new OpenAI(options);
const tools = [SAMPLES.weather_tool, SAMPLES.time_tool];
const Weather = z.object({ city: z.string(), temperature_c: z.number().int() });
const WEATHER = { city: "Paris", temperature_c: 21 };
const PARIS = ["get_weather", { city: "Paris" }];
const NOW = ["get_time", { zone: "Europe/Paris" }];

const chat = (text, fields = {}, more = {}) =>
  client.chat.completions.create({ model: MODEL, messages: said(text), ...fields }, more);
const streamed = (text, fields = {}) =>
  client.chat.completions.stream({ model: MODEL, messages: said(text), ...fields });
const calls = (message) =>
  (message.tool_calls ?? []).map((call) => [
    call.function.name,
    JSON.parse(call.function.arguments),
  ]);

feature("chat", async () => {
  const answer = await chat("Grüße 👋");
  assert.equal(answer.choices[0].message.content, "You said: Grüße 👋");
  assert.equal(answer.choices[0].finish_reason, "stop");
  const { prompt_tokens, completion_tokens, total_tokens } = answer.usage;
  assert.equal(total_tokens, prompt_tokens + completion_tokens);
});

feature("roles", async () => {
  const messages = [
    { role: "system", content: "Be kind." },
    { role: "developer", content: [{ type: "text", text: "Be brief." }] },
    { role: "user", content: "Show me the system message." },
  ];
  const answer = await client.chat.completions.create({ model: MODEL, messages });
  assert.equal(answer.choices[0].message.content, "I was told: Be kind. | Be brief.");
});

feature("stream", async () => {
  const stream = streamed("Grüße 👋", { stream_options: { include_usage: true } });
  const parts = [];
  stream.on("content", (part) => parts.push(part));
  const final = await stream.finalChatCompletion();
  assert.equal(final.choices[0].message.content, "You said: Grüße 👋");
  assert.equal(final.choices[0].finish_reason, "stop");
  assert.equal(parts.join(""), "You said: Grüße 👋");
  assert.ok(parts.length > 5);
  assert.ok(final.usage.completion_tokens > 5);
});

feature("choices", async () => {
  const answer = await chat("The seed?", { n: 2, seed: 5 });
  const final = await streamed("The seed?", { n: 2, seed: 5 }).finalChatCompletion();
  for (const { choices } of [answer, final]) {
    const texts = choices.map((choice) => choice.message.content);
    assert.deepEqual(texts, ["The seed is 5.", "The seed is 6."]);
  }
});

feature("stop", async () => {
  const [stopped] = (await chat("count", { stop: " four" })).choices;
  assert.deepEqual([stopped.message.content, stopped.finish_reason], ["one two three", "stop"]);
  const [cut] = (await chat("count", { max_tokens: 7 })).choices;
  assert.deepEqual([cut.message.content, cut.finish_reason], ["one two", "length"]);
});

feature("seed", async () => {
  assert.equal((await chat("The seed?", { seed: 7 })).choices[0].message.content, "The seed is 7.");
});

feature("logprobs", async () => {
  const [choice] = (await chat("Grüße 👋", { logprobs: true, top_logprobs: 2 })).choices;
  const bytes = choice.logprobs.content.flatMap((token) => token.bytes ?? []);
  assert.equal(Buffer.from(bytes).toString(), choice.message.content);
  assert.ok(choice.logprobs.content.every((token) => token.top_logprobs.length === 2));
});

feature("logprobs_stream", async () => {
  const final = await streamed("Grüße 👋", { logprobs: true }).finalChatCompletion();
  const bytes = final.choices[0].logprobs.content.flatMap((token) => token.bytes ?? []);
  assert.equal(Buffer.from(bytes).toString(), "You said: Grüße 👋");
});

feature("image", async () => {
  const content = [
    { type: "text", text: "What is this?" },
    { type: "image_url", image_url: { url: SAMPLES.picture, detail: "auto" } },
  ];
  const messages = [{ role: "user", content }];
  const answer = await client.chat.completions.create({ model: MODEL, messages });
  assert.equal(answer.choices[0].message.content, "Pictures: 1.");
});

feature("tools_auto", async () => {
  const [choice] = (await chat("How is the weather?", { tools })).choices;
  assert.deepEqual(calls(choice.message), [PARIS]);
  assert.deepEqual([choice.finish_reason, choice.message.content], ["tool_calls", null]);
  const [other] = (await chat("Hello", { tools })).choices;
  assert.deepEqual([other.finish_reason, other.message.content], ["stop", "You said: Hello"]);
});

feature("tools_pythonic", async () => {
  const answer = await chat("The weather, pythonic", { tools });
  assert.deepEqual(calls(answer.choices[0].message), [PARIS]);
});

feature("tools_required", async () => {
  const answer = await chat("Hello", { tools, tool_choice: "required" });
  assert.deepEqual(calls(answer.choices[0].message), [PARIS]);
});

feature("tools_named", async () => {
  const tool_choice = { type: "function", function: { name: "get_time" } };
  const answer = await chat("How is the weather?", { tools, tool_choice });
  assert.deepEqual(calls(answer.choices[0].message), [NOW]);
});

feature("tools_allowed", async () => {
  const named = [{ type: "function", function: { name: "get_time" } }];
  const tool_choice = {
    type: "allowed_tools",
    allowed_tools: { mode: "required", tools: named },
  };
  const answer = await chat("How is the weather?", { tools, tool_choice });
  assert.deepEqual(calls(answer.choices[0].message), [NOW]);
});

feature("tools_none", async () => {
  const answer = await chat("How is the weather?", { tools, tool_choice: "none" });
  assert.deepEqual(calls(answer.choices[0].message), []);
  assert.ok(answer.choices[0].message.content);
});

feature("tools_parallel", async () => {
  const both = await chat("The weather and the time?", { tools });
  assert.deepEqual(calls(both.choices[0].message), [PARIS, NOW]);
  const one = await chat("The weather and the time?", { tools, parallel_tool_calls: false });
  assert.deepEqual(calls(one.choices[0].message), [PARIS]);
});

feature("tools_strict", async () => {
  const tool = zodFunction({ name: "report_weather", parameters: Weather });
  const fields = { model: MODEL, messages: said("Report the weather"), tools: [tool] };
  const answer = await client.chat.completions.parse(fields);
  assert.deepEqual(answer.choices[0].message.tool_calls[0].function.parsed_arguments, WEATHER);
});

feature("tools_stream", async () => {
  const stream = streamed("The weather and the time?", { tools });
  let parts = 0;
  stream.on("tool_calls.function.arguments.delta", () => parts++);
  const final = await stream.finalChatCompletion();
  assert.deepEqual(calls(final.choices[0].message), [PARIS, NOW]);
  assert.equal(final.choices[0].finish_reason, "tool_calls");
  assert.ok(parts > 4, `${parts}`);
});

feature("tools_results", async () => {
  const asked = [];
  const tool = {
    type: "function",
    function: {
      ...SAMPLES.weather_tool.function,
      parse: JSON.parse,
      function: (input) => {
        asked.push(input);
        return "sunny";
      },
    },
  };
  const fields = { model: MODEL, messages: said("How is the weather?"), tools: [tool] };
  const text = await client.chat.completions.runTools(fields).finalContent();
  assert.deepEqual([text, asked], ["The result is sunny.", [{ city: "Paris" }]]);
});

feature("tools_custom", async () => {
  const answer = await chat("Use the calculator", { tools: [SAMPLES.custom_tool] });
  const [call] = answer.choices[0].message.tool_calls;
  assert.deepEqual([call.type, call.custom], ["custom", { name: "calculator", input: "2 + 2" }]);
});

feature("tools_custom_stream", async () => {
  const stream = streamed("Use the calculator", { tools: [SAMPLES.custom_tool] });
  const [call] = (await stream.finalChatCompletion()).choices[0].message.tool_calls;
  assert.deepEqual([call.type, call.custom], ["custom", { name: "calculator", input: "2 + 2" }]);
});

feature("json_object", async () => {
  const answer = await chat("Answer in json", { response_format: { type: "json_object" } });
  assert.deepEqual(JSON.parse(answer.choices[0].message.content), WEATHER);
});

feature("json_schema", async () => {
  const response_format = zodResponseFormat(Weather, "weather");
  const fields = { model: MODEL, messages: said("How warm is it?"), response_format };
  const answer = await client.chat.completions.parse(fields);
  assert.deepEqual(answer.choices[0].message.parsed, WEATHER);
});

feature("json_schema_stream", async () => {
  const response_format = zodResponseFormat(Weather, "weather");
  const final = await streamed("How warm is it?", { response_format }).finalChatCompletion();
  assert.deepEqual(final.choices[0].message.parsed, WEATHER);
});

feature("completions", async () => {
  const fields = { model: MODEL, prompt: "count", stop: " three", max_tokens: 50 };
  const [choice] = (await client.completions.create(fields)).choices;
  assert.deepEqual([choice.text, choice.finish_reason], ["one two", "stop"]);
});

feature("completions_echo", async () => {
  const fields = { model: MODEL, prompt: "count", echo: true, logprobs: 1, max_tokens: 3 };
  const [{ text, logprobs }] = (await client.completions.create(fields)).choices;
  assert.equal(text, "countone");
  assert.equal(logprobs.tokens.join(""), text);
  assert.ok(logprobs.token_logprobs.every(Number.isFinite));
});

feature("completions_many", async () => {
  const fields = { model: MODEL, prompt: ["seed a", "b"], n: 2, seed: 1, max_tokens: 50 };
  const { choices } = await client.completions.create(fields);
  const texts = choices.map((choice) => choice.text);
  assert.deepEqual(texts, ["The seed is 1.", "The seed is 2.", "You said: b", "You said: b"]);
});

feature("completions_stream", async () => {
  const fields = { model: MODEL, prompt: "count", stream: true, max_tokens: 100 };
  let text = "";
  for await (const chunk of await client.completions.create(fields)) text += chunk.choices[0].text;
  assert.equal(text, "one two three four five six seven eight nine ten");
});

feature("models", async () => {
  const listed = [];
  for await (const model of client.models.list()) listed.push(model.id);
  assert.deepEqual(listed, [MODEL]);
  assert.equal((await client.models.retrieve(MODEL)).id, MODEL);
});

feature("error_model", async () => {
  const call = () => chat("Hello", { model: "x" });
  const error = await failure(OpenAI.NotFoundError, call);
  assert.deepEqual([error.code, error.param], ["model_not_found", "model"]);
});

feature("error_parameter", async () => {
  const unknown = await failure(OpenAI.BadRequestError, () => chat("Hello", { no_such: 1 }));
  assert.deepEqual([unknown.code, unknown.param], ["unknown_parameter", "no_such"]);
  const wrong = await failure(OpenAI.BadRequestError, () => chat("Hello", { temperature: 3 }));
  assert.deepEqual([wrong.code, wrong.param], ["invalid_value", "temperature"]);
});

feature("error_context", async () => {
  const error = await failure(OpenAI.BadRequestError, () => chat("long ".repeat(5000)));
  assert.deepEqual([error.code, error.param], ["context_length_exceeded", "messages"]);
});

feature("error_key", async () => {
  const stranger = new OpenAI({ ...options, apiKey: "wrong" });
  const error = await failure(OpenAI.AuthenticationError, () => stranger.models.list());
  assert.equal(error.code, "invalid_api_key");
});

feature("error_stream", async () => {
  let text = "";
  const error = await failure(OpenAI.APIError, async () => {
    for await (const chunk of await chat("die", { stream: true })) {
      text += chunk.choices[0].delta.content ?? "";
    }
  });
  assert.deepEqual([error.code, error.type, text], ["engine_dead", "server_error", "You said: "]);
});

feature("retries", async () => {
  const error = await failure(OpenAI.InternalServerError, () => chat(`busy ${randomUUID()}`));
  assert.deepEqual([error.code, error.headers.get("retry-after")], ["overloaded", "1"]);
  const text = `busy ${randomUUID()}`;
  const answer = await chat(text, {}, { maxRetries: 1 });
  assert.equal(answer.choices[0].message.content, `You said: ${text}`);
});

feature("request_id", async () => {
  const mine = await chat("Hello", {}, { headers: { "x-request-id": "mine" } });
  assert.equal(mine._request_id, "mine");
  const error = await failure(OpenAI.BadRequestError, () => chat("Hello", { temperature: 3 }));
  assert.ok(error.requestID);
});

feature("timeout", async () => {
  await failure(OpenAI.APIConnectionTimeoutError, () => chat("slow", {}, { timeout: 500 }));
  assert.equal((await chat("Hello")).choices[0].message.content, "You said: Hello");
});

await run();
