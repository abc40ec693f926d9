// The server's state in the page's head: its model, or why there is none yet.
import { ApiError, checkReady, fetchModel } from './api.js';
import { byId } from './dom.js';

const RETRY_SECONDS = 5;
const WAITING = ['loading', 'draining', 'engine_dead'];

/** Asks until there is a model. `onChange` is called with each new state. */
export class Status {
  model = null; // {id, max_model_len} while the server can be asked
  needsKey = false; // it said so
  #round = 0; // a newer round of questions ends the older ones
  #key;
  #onChange;

  /** `key`: a function that gives the API key. */
  constructor({ key, onChange }) {
    this.#key = key;
    this.#onChange = onChange;
  }

  /** Asks now, and again until there is a model, or a key is needed. */
  async poll() {
    const round = (this.#round += 1);
    for (;;) {
      const wait = await this.#ask();
      this.#onChange();
      if (wait === null || round !== this.#round) return;
      await new Promise((done) => setTimeout(done, wait * 1000));
      if (round !== this.#round) return;
    }
  }

  /** A request's error may say that the state shown is an old one: then it asks again. */
  noteError(error) {
    const isOld = !(error instanceof ApiError) || error.status === 401 || WAITING.includes(error.code);
    if (isOld) this.poll();
  }

  /** Seconds to the next question; null: none is needed. */
  async #ask() {
    const round = this.#round;
    try {
      await checkReady();
      const model = await fetchModel(this.#key());
      if (round !== this.#round) return null;
      this.model = model;
      this.needsKey = false;
      this.#show('ready', model.id);
      return null;
    } catch (error) {
      if (round !== this.#round) return null;
      return this.#explain(error);
    }
  }

  #explain(error) {
    this.model = null;
    if (error.status === 401) {
      this.needsKey = true;
      this.#show('locked', this.#key() ? 'The API key is not valid' : 'This server needs an API key');
      return null;
    }
    this.#show(error.code === 'loading' ? 'loading' : 'down', loadingText(error));
    return error.retrySeconds ?? RETRY_SECONDS;
  }

  #show(state, text) {
    const box = byId('status');
    box.dataset.state = state;
    if (box.textContent !== text) box.textContent = text;
    box.title = text;
  }
}

function loadingText({ code, message, progress }) {
  if (code !== 'loading') return message;
  if (!progress) return 'Model is loading';
  const { phase, done, total, unit } = progress;
  return `Model is loading: ${phase}, ${done} of ${total} ${unit}`;
}
