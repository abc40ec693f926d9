// The server's HTTP API. Addresses are relative to the page's own, so a path prefix does no harm.
import { readEvents } from './sse.js';

export const CHAT_URL = new URL('v1/chat/completions', document.baseURI).href;
export const API_URL = new URL('v1', document.baseURI).href;

/** What the server says went wrong. `status` is 0 if the error came in mid-stream. */
export class ApiError extends Error {
  constructor(message, { status = 0, code = null, retrySeconds = null } = {}) {
    super(message);
    this.status = status;
    this.code = code;
    this.retrySeconds = retrySeconds;
  }
}

/** Nothing answers at all. */
export class Unreachable extends Error {}

/** The model served: `{id, max_model_len}`. Throws ApiError, Unreachable. */
export async function fetchModel(key) {
  const response = await send('v1/models', { headers: authorization(key) });
  return (await response.json()).data[0];
}

/** Returns once the server takes requests. Throws ApiError, Unreachable. */
export async function checkReady() {
  await send('ready', {});
}

/** Yields the chunks of a streamed answer. Throws ApiError, Unreachable, AbortError. */
export async function* streamChat(body, key, signal) {
  const response = await send('v1/chat/completions', {
    method: 'POST',
    headers: { 'Content-Type': 'application/json', ...authorization(key) },
    body: JSON.stringify(body),
    signal,
  });
  try {
    for await (const data of readEvents(response.body)) {
      if (data === '[DONE]') return;
      const chunk = JSON.parse(data);
      if (chunk.error) throw new ApiError(chunk.error.message, { code: chunk.error.code });
      yield chunk;
    }
  } catch (error) {
    throw error instanceof TypeError ? new Unreachable('The connection broke.') : error;
  }
  throw new Unreachable('The answer ended before it was complete.');
}

async function send(path, init) {
  let response;
  try {
    response = await fetch(new URL(path, document.baseURI), { cache: 'no-store', ...init });
  } catch (error) {
    if (error instanceof TypeError) throw new Unreachable('The server cannot be reached.');
    throw error;
  }
  if (response.ok) return response;
  throw await refusal(response);
}

async function refusal(response) {
  const { error = {}, progress = null } = await response.json().catch(() => ({}));
  const wait = Number.parseInt(response.headers.get('Retry-After') ?? '', 10);
  const { status } = response;
  const known = new ApiError(error.message ?? `The server answers with status ${status}.`, {
    status,
    code: error.code ?? null,
    retrySeconds: Number.isNaN(wait) ? null : wait,
  });
  known.progress = progress;
  return known;
}

/** fetch() takes headers of bytes only: a key beyond ASCII goes as the bytes of its UTF-8. */
function authorization(key) {
  if (!key) return {};
  return { Authorization: `Bearer ${String.fromCharCode(...new TextEncoder().encode(key))}` };
}
