// One answer of the model, put together from the chunks of its stream, and its times.

const SHORTEST = 0.05; // seconds; what comes in less came in one piece, and has no rate

/** A turn of the conversation (request.js) that is still being written. Times are in seconds. */
export class Answer {
  role = 'assistant';
  text = '';
  calls = []; // {id, type, name, input}; a function's input is its arguments as JSON
  finish = null;
  usage = null;
  stopped = false; // by the user
  error = null; // what ended it early, in words
  #asked = now();
  #first = null;
  #last = null;
  #chunks = 0; // that had something of the answer: about one token each

  /** Adds what a chunk has. */
  take(chunk) {
    this.usage = chunk.usage ?? this.usage;
    const choice = chunk.choices[0];
    if (!choice) return;
    const { content, refusal, tool_calls: calls = [] } = choice.delta;
    const text = content ?? refusal ?? '';
    this.text += text;
    calls.forEach((call) => this.#takeCall(call));
    if (text || calls.length) this.#mark();
    this.finish = choice.finish_reason ?? this.finish;
  }

  /** From the request to the first token; null before. */
  get secondsToFirst() {
    return this.#first && this.#first - this.#asked;
  }

  /** Tokens so far: exact once the server has said, until then its chunks. */
  get tokens() {
    return this.usage?.completion_tokens ?? this.#chunks;
  }

  get isExact() {
    return this.usage !== null;
  }

  /** The tokens after the first one, over their time; null while that says nothing. */
  get tokensPerSecond() {
    const seconds = this.#last - this.#first;
    return seconds > SHORTEST && this.tokens > 1 ? (this.tokens - 1) / seconds : null;
  }

  #takeCall({ index, id, type, function: called, custom }) {
    const call = (this.calls[index] ??= { id: '', type: 'function', name: '', input: '' });
    call.id ||= id ?? '';
    call.type = type ?? call.type;
    call.name ||= called?.name ?? custom?.name ?? '';
    call.input += called?.arguments ?? custom?.input ?? '';
  }

  #mark() {
    this.#last = now();
    this.#first ??= this.#last;
    this.#chunks += 1;
  }
}

function now() {
  return performance.now() / 1000;
}
