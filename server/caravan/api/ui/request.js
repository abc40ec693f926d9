// From the conversation on the page to the body of a request. Nothing here touches the page.
//
// A conversation is a list of turns:
//   {role: 'user', text, pictures: [{name, url}]}
//   {role: 'assistant', text, calls: [{id, type, name, input}]}     see answer.js
//   {role: 'tool', callId, name, text}

/** The body of POST /v1/chat/completions. `settings` is what settings.js reads. */
export function chatBody(model, turns, settings) {
  const system = settings.system ? [{ role: 'system', content: settings.system }] : [];
  return {
    model,
    messages: [...system, ...turns.filter(says).map(message)],
    ...settings.fields,
    stream: true,
    stream_options: { include_usage: true },
  };
}

/** The turns up to the last one that is not the model's: what the last answer was made from. */
export function withoutAnswer(turns) {
  return turns.at(-1)?.role === 'assistant' ? turns.slice(0, -1) : turns;
}

/** Whether all of a call has arrived: an answer that was stopped may end inside one. */
export function isComplete(call) {
  if (!call.id || !call.name) return false;
  return call.type === 'custom' || parsed(call.input) !== undefined;
}

/** The value of a JSON text; undefined if it is not one. */
export function parsed(text) {
  try {
    return JSON.parse(text);
  } catch {
    return undefined;
  }
}

/** An answer that was stopped or failed before its first word is no message. */
function says(turn) {
  return turn.role !== 'assistant' || turn.text !== '' || turn.calls.some(isComplete);
}

function message(turn) {
  switch (turn.role) {
    case 'user':
      return { role: 'user', content: userContent(turn) };
    case 'tool':
      return { role: 'tool', tool_call_id: turn.callId, content: turn.text };
    default:
      return assistantMessage(turn);
  }
}

function userContent({ text, pictures }) {
  if (!pictures.length) return text;
  const parts = pictures.map(({ url }) => ({ type: 'image_url', image_url: { url } }));
  return text ? [...parts, { type: 'text', text }] : parts;
}

function assistantMessage({ text, calls }) {
  const complete = calls.filter(isComplete).map(toolCall);
  return {
    role: 'assistant',
    ...(text && { content: text }),
    ...(complete.length && { tool_calls: complete }),
  };
}

function toolCall({ id, type, name, input }) {
  if (type === 'custom') return { id, type, custom: { name, input } };
  return { id, type: 'function', function: { name, arguments: input } };
}
