// A little of Markdown as nodes: code, headings, lists, bold, italics. All else stays as written.
//
// The text is read by hand and in linear time. Only blocks that changed are made anew, so a long
// answer stays cheap while it grows, and what a reader has selected stays selected.
import { copyText, el, toast } from './dom.js';

const FENCE = '```';
const BULLETS = ['- ', '* ', '+ '];
const MAX_LEVEL = 3;

/** The text of an answer, block by block. */
export class Markdown {
  #container;
  #sources = [];

  constructor(container) {
    this.#container = container;
  }

  /** Shows this text in place of the last one. */
  update(text) {
    const blocks = splitBlocks(text);
    let same = 0;
    while (same < blocks.length && this.#sources[same] === blocks[same].source) same += 1;
    while (this.#container.childNodes.length > same) this.#container.lastChild.remove();
    this.#container.append(...blocks.slice(same).map(blockNode));
    this.#sources = blocks.map(({ source }) => source);
  }
}

/** Blocks as {kind, lines, source}; the kinds are code, heading, list and paragraph. */
function splitBlocks(text) {
  const blocks = [];
  let open = null;
  for (const line of text.split('\n')) {
    const kind = open?.kind === 'code' && !open.closed ? 'code' : kindOf(line, open);
    if (!open || open.closed || kind !== open.kind) {
      open = { kind, lines: [], source: '', closed: kind === 'heading' || kind === 'blank' };
      if (kind !== 'blank') blocks.push(open);
    } else if (kind === 'code' && line.trimEnd() === FENCE) {
      open.closed = true;
    }
    open.lines.push(line);
    open.source += `${line}\n`;
  }
  return blocks;
}

function kindOf(line, open) {
  const trimmed = line.trimStart();
  if (trimmed.startsWith(FENCE)) return 'code';
  if (!trimmed) return 'blank';
  if (headingLevel(line)) return 'heading';
  const goesOn = open?.kind === 'list' && !open.closed && line.startsWith('  ');
  return goesOn || markerLength(trimmed) ? 'list' : 'paragraph';
}

function headingLevel(line) {
  let level = 0;
  while (line[level] === '#') level += 1;
  return level <= 6 && line[level] === ' ' ? level : 0;
}

/** Characters of `- ` or `12. ` at the start of an item; 0: it is none. */
function markerLength(line) {
  if (BULLETS.includes(line.slice(0, 2))) return 2;
  let digits = 0;
  while (digits < 4 && line[digits] >= '0' && line[digits] <= '9') digits += 1;
  return digits && line.startsWith('. ', digits) ? digits + 2 : 0;
}

function blockNode({ kind, lines, closed }) {
  switch (kind) {
    case 'code':
      return codeNode(lines[0].trim().slice(FENCE.length), lines.slice(1, closed ? -1 : undefined));
    case 'heading':
      return el('h3', {}, ...inline(lines[0].slice(headingLevel(lines[0])).trim()));
    case 'list':
      return listNode(lines);
    default:
      return el('p', {}, ...inline(lines.join('\n')));
  }
}

/** Code with its language and a button that copies it. */
export function codeNode(language, lines) {
  const code = lines.join('\n');
  const copy = async () => {
    await copyText(code);
    toast('Copied.');
  };
  const button = el('button', { type: 'button', class: 'small', onclick: copy }, 'Copy');
  const head = el('div', { class: 'code-head' }, el('span', {}, language || 'text'), button);
  return el('div', { class: 'code' }, head, el('pre', { tabindex: '0' }, el('code', {}, code)));
}

function listNode(lines) {
  const items = [];
  for (const line of lines) {
    const trimmed = line.trimStart();
    const marker = markerLength(trimmed);
    if (marker) items.push({ level: levelOf(line), marker, text: trimmed });
    else items.at(-1).text += `\n${trimmed}`;
  }
  const isOrdered = items[0].marker > 2;
  const nodes = items.map(({ level, marker, text }) => {
    const number = marker > 2 ? Number.parseInt(text, 10) : undefined;
    const properties = {
      'data-level': level,
      'data-bullet': marker === 2,
      value: isOrdered ? number : undefined,
    };
    return el('li', properties, ...inline(text.slice(marker)));
  });
  return el(isOrdered ? 'ol' : 'ul', {}, ...nodes);
}

function levelOf(line) {
  const indent = line.length - line.trimStart().length;
  return Math.min(MAX_LEVEL, Math.floor(indent / 2));
}

const SPANS = [
  ['`', (inner) => el('code', {}, inner)],
  ['**', (inner) => el('strong', {}, ...inline(inner))],
  ['*', (inner) => el('em', {}, inner)],
];

/** Texts and nodes of a line. A marker without its partner is a character like others. */
function inline(text) {
  const parts = [];
  const partnerless = new Set();
  let from = 0;
  for (let at = 0; at < text.length; at += 1) {
    const span = SPANS.find(([mark]) => text.startsWith(mark, at));
    if (!span || partnerless.has(span[0])) continue;
    const [mark, make] = span;
    const start = at + mark.length;
    const end = text.indexOf(mark, start);
    if (end < 0) partnerless.add(mark);
    if (end > start && hugs(text, mark, at, end)) {
      parts.push(text.slice(from, at), make(text.slice(start, end)));
      from = end + mark.length;
      at = from - 1;
    } else {
      at = start - 1;
    }
  }
  parts.push(text.slice(from));
  return parts.filter((part) => part !== '');
}

/** Stars stand close to what they mark: 2 * 3 * 4 is a product, and so is a*b*c. */
function hugs(text, mark, at, end) {
  if (mark === '`') return true;
  if (!text[at + mark.length].trim() || !text[end - 1].trim()) return false;
  return mark === '**' || !isWord(text[at - 1] ?? ' ');
}

function isWord(character) {
  const isDigit = character >= '0' && character <= '9';
  return isDigit || character.toLowerCase() !== character.toUpperCase();
}
