// How turns of the conversation look: the user's, the model's, results of tools.
import { codeNode, Markdown } from './markdown.js';
import { copyText, el, icon, toast } from './dom.js';
import { isComplete, parsed } from './request.js';

const FINISHES = {
  length: 'The answer ends here because it reached its most tokens, or the context is full.',
  content_filter: 'The server held back the rest.',
};

/** What the user said. `onEdit` takes it back to the composer. */
export function userNode({ text, pictures }, onEdit) {
  const images = pictures.map(({ name, url }) => el('img', { src: url, alt: name }));
  const bubble = el('div', { class: 'bubble' });
  if (images.length) bubble.append(el('div', { class: 'pictures' }, ...images));
  if (text) bubble.append(el('p', { class: 'said' }, text));
  const actions = el('div', { class: 'actions' }, actionButton('pencil', 'Edit', onEdit));
  return turnNode('user', 'You', bubble, actions);
}

/** What the user typed as a tool's result. */
export function resultNode({ name, text }) {
  const json = parsed(text);
  const shown = isObject(json) ? valueNode(json) : el('p', { class: 'said' }, text);
  return turnNode('tool', `Result of ${name}`, shown);
}

/** The model's turn, while it grows and after. */
export class AnswerView {
  node;
  #answer;
  #handlers;
  #body = el('div', { class: 'body' });
  #calls = el('div', { class: 'calls' });
  #stats = el('span', { class: 'stats' });
  #notes = el('div', { class: 'notes' });
  #markdown = new Markdown(this.#body);
  #frame = 0;
  #form = null;

  /** `handlers`: onRetry(), onResults([{callId, name, text}]). */
  constructor(answer, handlers) {
    this.#answer = answer;
    this.#handlers = handlers;
    const buttons = [
      actionButton('retry', 'Retry', handlers.onRetry),
      actionButton('copy', 'Copy', () => this.#copy()),
    ];
    this.node = turnNode(
      'assistant',
      'Model',
      this.#body,
      this.#calls,
      this.#notes,
      el('div', { class: 'actions' }, this.#stats, ...buttons),
    );
    this.node.classList.add('growing');
    this.node.setAttribute('aria-busy', 'true'); // it is read out once it is complete
  }

  /** Shows what is new with the next frame: once, however many chunks arrive before it. */
  refresh() {
    this.#frame ||= requestAnimationFrame(() => {
      this.#frame = 0;
      this.#render();
    });
  }

  /** The answer is complete, or as complete as it gets. */
  finish() {
    cancelAnimationFrame(this.#frame);
    this.#render();
    this.node.classList.remove('growing');
    this.node.setAttribute('aria-busy', 'false');
    this.#notes.replaceChildren(...this.#endings());
    const open = this.#answer.calls.filter(isComplete);
    if (open.length && !this.#answer.error && !this.#answer.stopped) this.#askForResults(open);
  }

  /** The conversation went on without results. */
  closeForm() {
    this.#form?.remove();
    this.#form = null;
  }

  #render() {
    this.#markdown.update(this.#answer.text);
    this.#calls.replaceChildren(...this.#answer.calls.map(callNode));
    this.#stats.textContent = statistics(this.#answer);
  }

  #endings() {
    const { error, stopped, finish, text, calls } = this.#answer;
    const notes = [];
    if (error) notes.push(el('p', { class: 'error', role: 'alert' }, error));
    if (stopped) notes.push(el('p', { class: 'note' }, 'Stopped.'));
    if (FINISHES[finish]) notes.push(el('p', { class: 'note' }, FINISHES[finish]));
    if (!notes.length && !text && !calls.length) {
      notes.push(el('p', { class: 'note' }, 'The answer is empty.'));
    }
    return notes;
  }

  async #copy() {
    const calls = this.#answer.calls.map(({ name, input }) => `${name}(${input})`);
    await copyText([this.#answer.text, ...calls].filter(Boolean).join('\n'));
    toast('Copied.');
  }

  #askForResults(calls) {
    const send = () => this.#sendResults(calls, fields);
    const fields = calls.map(({ name }) => resultField(name, send));
    const text = calls.length > 1 ? 'Send results' : 'Send result';
    const button = el('button', { type: 'submit', class: 'primary' }, text);
    const submit = (event) => {
      event.preventDefault();
      send();
    };
    const labels = fields.map(({ label }) => label);
    this.#form = el('form', { class: 'results', onsubmit: submit }, ...labels, button);
    this.#calls.after(this.#form);
    // Not out of a message that the user is writing meanwhile.
    if (!document.activeElement?.value) fields[0].area.focus({ preventScroll: true });
  }

  #sendResults(calls, fields) {
    const missing = fields.find(({ area }) => !area.value.trim());
    if (missing) {
      missing.area.focus();
      return;
    }
    this.#handlers.onResults(
      calls.map(({ id, name }, i) => ({ callId: id, name, text: fields[i].area.value.trim() })),
    );
  }
}

function turnNode(kind, who, ...children) {
  const heading = el('h2', { class: 'who' }, who);
  return el('article', { class: `turn ${kind}` }, heading, ...children);
}

function actionButton(drawing, text, act) {
  const style = `small action-${drawing}`;
  const properties = { type: 'button', class: style, 'aria-label': text, title: text, onclick: act };
  return el('button', properties, icon(drawing), el('span', {}, text));
}

function resultField(name, send) {
  const enter = (event) => {
    if (event.key !== 'Enter' || event.shiftKey || event.isComposing) return;
    event.preventDefault();
    send();
  };
  const area = el('textarea', { rows: '2', placeholder: '{"temperature": 19}', onkeydown: enter });
  return { area, label: el('label', {}, el('span', {}, `Result of ${name}`), area) };
}

function callNode({ name, input, type }) {
  const head = el('div', { class: 'call-head' }, icon('tool'), el('strong', {}, name || '…'));
  const value = type === 'custom' ? undefined : parsed(input);
  const raw = el('pre', { tabindex: '0' }, el('code', {}, input));
  return el('div', { class: 'call' }, head, isObject(value) ? valueNode(value) : raw);
}

/** Flat objects as a table, others as JSON. */
function valueNode(value) {
  const rows = Object.entries(value);
  const isFlat = !Array.isArray(value) && rows.every(([, item]) => !isObject(item));
  if (!isFlat) return codeNode('json', JSON.stringify(value, null, 2).split('\n'));
  if (!rows.length) return el('p', { class: 'note' }, 'no arguments');
  const cells = rows.map(([key, item]) =>
    el('tr', {}, el('th', { scope: 'row' }, key), el('td', {}, String(item))),
  );
  return el('table', {}, el('tbody', {}, ...cells));
}

function isObject(value) {
  return value !== null && typeof value === 'object';
}

function statistics(answer) {
  const parts = [];
  const { tokens, tokensPerSecond, secondsToFirst, isExact } = answer;
  if (tokens) parts.push(`${isExact ? '' : '≈ '}${tokens} ${tokens === 1 ? 'token' : 'tokens'}`);
  if (tokensPerSecond) parts.push(`${rate(tokensPerSecond)} tokens/s`);
  if (secondsToFirst !== null) parts.push(`first after ${seconds(secondsToFirst)}`);
  return parts.join(' · ');
}

function rate(value) {
  return value.toFixed(value < 100 ? 1 : 0);
}

function seconds(value) {
  return value < 1 ? `${Math.round(value * 1000)} ms` : `${value.toFixed(1)} s`;
}
