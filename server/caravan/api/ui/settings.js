// The panel of settings: reads it, says what is wrong in it, and tells the composer what is on.
import { byId, el, icon } from './dom.js';
import { parsed } from './request.js';
import { exampleSchema, exampleTools } from './samples.js';

const KEY_ITEM = 'caravan.key'; // of sessionStorage: gone with the tab
const WIDE = matchMedia('(min-width: 1100px)'); // style.css knows it, too

const isWhole = Number.isSafeInteger; // JSON's numbers here are JavaScript's
const isFrom = (low, high) => (value) => value >= low && value <= high;
const NUMBERS = {
  temperature: { isValid: isFrom(0, 2), rule: 'A number from 0 to 2.' },
  top_p: { isValid: (value) => value > 0 && value <= 1, rule: 'A number above 0, at most 1.' },
  max_tokens: { isValid: (value) => isWhole(value) && value > 0, rule: 'A whole number from 1.' },
  seed: { isValid: isWhole, rule: 'A whole number.' },
};
const ESCAPES = { n: '\n', t: '\t', '\\': '\\' };

/** A field that does not hold what it should. */
class Problem extends Error {
  constructor(field, message) {
    super(message);
    this.field = field;
  }
}

/** The panel. `onKey` is called with each new API key, `onChange` after any change. */
export class Settings {
  #panel = byId('settings');
  #toggle = byId('settings-toggle');
  #onChange;

  constructor({ onKey, onChange }) {
    const key = byId('key');
    key.value = stored();
    key.addEventListener('change', () => {
      store(key.value.trim());
      onKey(this.key);
    });
    key.form.addEventListener('submit', (event) => event.preventDefault());
    this.#toggle.addEventListener('click', () => this.show(this.#panel.hidden));
    byId('settings-close').addEventListener('click', () => this.hide());
    byId('tools-example').addEventListener('click', () => {
      byId('tools').value = exampleTools;
      this.#changed();
    });
    this.#panel.addEventListener('input', () => this.#changed());
    this.#onChange = onChange;
    this.show(WIDE.matches);
    this.#refresh();
  }

  get key() {
    return byId('key').value.trim();
  }

  /** Whether the panel covers the conversation. */
  get isOverlay() {
    return !this.#panel.hidden && !WIDE.matches;
  }

  show(shown) {
    this.#panel.hidden = !shown;
    this.#toggle.setAttribute('aria-expanded', String(shown));
  }

  hide() {
    this.show(false);
    this.#toggle.focus();
  }

  /** Opens the panel at one of its fields. */
  focus(id) {
    this.show(true);
    byId(id).focus();
  }

  /** {system, fields} for request.js; null if a field is wrong, which then has the focus. */
  read() {
    this.#refresh();
    try {
      return readAll();
    } catch (problem) {
      if (!(problem instanceof Problem)) throw problem;
      this.focus(problem.field);
      return null;
    }
  }

  /** What an example question needs, in place of what another one needed. */
  useExample({ tools, format, schema }) {
    const isExample = (id, text) => byId(id).value === text;
    if (tools || isExample('tools', exampleTools)) byId('tools').value = tools ?? '';
    if (format || isExample('schema', exampleSchema)) byId('format').value = format ?? 'off';
    if (schema) byId('schema').value = schema;
    this.#changed();
  }

  /** What shapes the answer beyond its words: buttons that lead to the fields. */
  badges() {
    const tools = parsed(byId('tools').value);
    const names = Array.isArray(tools) ? tools.map(nameOf).filter(Boolean) : [];
    const format = byId('format');
    const shown = [];
    if (byId('system').value.trim()) shown.push(['system', 'quote', 'System prompt']);
    if (byId('tools').value.trim()) shown.push(['tools', 'tool', names.join(', ') || 'Tools']);
    if (format.value !== 'off') shown.push(['format', 'braces', format.selectedOptions[0].text]);
    return shown.map(([id, drawing, text]) => {
      const open = () => this.focus(id);
      const label = el('span', {}, text);
      return el('button', { type: 'button', class: 'badge', onclick: open }, icon(drawing), label);
    });
  }

  #changed() {
    this.#refresh();
    this.#onChange();
  }

  /** Shows the fields that are needed, and each field's problem beside it. */
  #refresh() {
    const needsSchema = byId('format').value === 'json_schema';
    byId('schema-field').hidden = !needsSchema;
    if (needsSchema && !byId('schema').value.trim()) byId('schema').value = exampleSchema;
    for (const [id, read] of Object.entries(READERS)) {
      const message = problemOf(read);
      byId(id).setAttribute('aria-invalid', String(Boolean(message)));
      byId(`${id}-problem`).textContent = message;
    }
  }
}

const READERS = {
  ...Object.fromEntries(Object.keys(NUMBERS).map((id) => [id, () => readNumber(id)])),
  tools: readTools,
  schema: readFormat,
};

function problemOf(read) {
  try {
    read();
    return '';
  } catch (problem) {
    return problem.message;
  }
}

function readAll() {
  const stop = byId('stop').value.split('\n').map(unescaped).filter(Boolean);
  const numbers = Object.keys(NUMBERS).map((id) => [id, readNumber(id)]);
  const all = {
    ...Object.fromEntries(numbers),
    stop: stop.length ? stop : undefined,
    tools: readTools(),
    response_format: readFormat(),
  };
  const given = Object.entries(all).filter(([, value]) => value !== undefined);
  return { system: byId('system').value.trim(), fields: Object.fromEntries(given) };
}

function readNumber(id) {
  const { isValid, rule } = NUMBERS[id];
  const field = byId(id);
  if (field.validity.badInput) throw new Problem(id, rule);
  if (field.value === '') return undefined;
  const value = Number(field.value);
  if (!isValid(value)) throw new Problem(id, rule);
  return value;
}

function readTools() {
  const text = byId('tools').value.trim();
  if (!text) return undefined;
  const tools = parsed(text);
  if (tools === undefined) throw new Problem('tools', 'This is not JSON yet.');
  if (!Array.isArray(tools)) throw new Problem('tools', 'A list is needed: [ … ]');
  return tools.length ? tools : undefined;
}

function readFormat() {
  const format = byId('format').value;
  if (format === 'off') return undefined;
  if (format === 'json_object') return { type: 'json_object' };
  const schema = parsed(byId('schema').value);
  if (schema === undefined) throw new Problem('schema', 'This is not JSON yet.');
  return { type: 'json_schema', json_schema: { name: 'answer', schema, strict: true } };
}

function nameOf(tool) {
  return tool?.function?.name ?? tool?.custom?.name;
}

/** `\n`, `\t` and `\\` as the characters they mean; other backslashes stay. */
function unescaped(line) {
  return line.replace(/\\([nt\\])/g, (_, letter) => ESCAPES[letter]);
}

/** Browsers may forbid storage altogether: then the key lives as long as the page. */
function stored() {
  try {
    return sessionStorage.getItem(KEY_ITEM) ?? '';
  } catch {
    return '';
  }
}

function store(key) {
  try {
    if (key) sessionStorage.setItem(KEY_ITEM, key);
    else sessionStorage.removeItem(KEY_ITEM);
  } catch {
    // Not kept, then.
  }
}
