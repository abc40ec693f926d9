// The page: a conversation, and what the user can do with it.
import { Answer } from './answer.js';
import { API_URL, ApiError, CHAT_URL, streamChat, Unreachable } from './api.js';
import { Composer, sampleButton } from './composer.js';
import { byId, copyText, el, icon, toast } from './dom.js';
import { AnswerView, resultNode, userNode } from './messages.js';
import { chatBody, withoutAnswer } from './request.js';
import { prompts, samples } from './samples.js';
import { Settings } from './settings.js';
import { asCurl, asPython } from './snippets.js';
import { Status } from './status.js';
import { toggleTheme } from './theme.js';

const NEAR_END = 80; // pixels from the end of the conversation that count as being there

const log = byId('log');
const scroller = byId('scroller');
const settings = new Settings({ onKey: () => status.poll(), onChange: showState });
const composer = new Composer({ onSend: send });
const status = new Status({ key: () => settings.key, onChange: showState });

let entries = []; // {turn, node, view}: the conversation, in order
let running = null; // {controller, done} of the answer that is being made

const turns = () => entries.map(({ turn }) => turn);

/** The user's message goes, if everything is in order. */
function send() {
  if (running) return;
  if (!status.model) {
    explainWait();
    return;
  }
  const wanted = settings.read();
  if (!wanted || composer.isEmpty) return;
  entries.at(-1)?.view?.closeForm();
  addUser(composer.draft);
  composer.clear();
  answer(wanted);
}

function explainWait() {
  toast(byId('status').textContent || 'One moment: the server is not ready.');
  if (status.needsKey) settings.focus('key');
}

function add(turn, node, view) {
  entries.push({ turn, node, view });
  log.append(node);
  showState();
}

function addUser({ text, pictures }) {
  const turn = { role: 'user', text, pictures };
  add(turn, userNode(turn, () => edit(turn)));
  scroller.scrollTop = scroller.scrollHeight;
}

/** Takes a message back to the composer, and everything after it away. */
async function edit(turn) {
  await stop();
  truncate(turns().indexOf(turn));
  composer.set(turn);
}

function truncate(length) {
  for (const { node } of entries.splice(length)) node.remove();
  showState();
}

/** Asks the model for the next turn. */
async function answer(wanted) {
  const body = chatBody(status.model.id, turns(), wanted);
  const turn = new Answer();
  const onResults = (results) => goOn(view, results);
  const view = new AnswerView(turn, { onRetry: retry, onResults });
  const controller = new AbortController();
  const done = write(turn, view, body, controller.signal);
  running = { controller, done };
  add(turn, view.node, view);
  stayAtEnd(true);
  await done;
  running = null;
  showState();
}

async function write(turn, view, body, signal) {
  try {
    for await (const chunk of streamChat(body, settings.key, signal)) {
      turn.take(chunk);
      view.refresh();
    }
  } catch (error) {
    note(turn, error);
  }
  const follow = isAtEnd();
  view.finish();
  stayAtEnd(follow);
}

/** What ended the answer early. */
function note(turn, error) {
  if (error.name === 'AbortError') {
    turn.stopped = true;
    return;
  }
  const isKnown = error instanceof ApiError || error instanceof Unreachable;
  turn.error = isKnown ? error.message : String(error);
  status.noteError(error);
}

/** Makes the last answer once more. */
function retry() {
  const wanted = settings.read();
  if (running || !wanted) return;
  if (!status.model) {
    explainWait();
    return;
  }
  truncate(withoutAnswer(turns()).length);
  answer(wanted);
  composer.focus();
}

/** The conversation goes on with results of tools. */
function goOn(view, results) {
  const wanted = settings.read();
  if (running || !wanted) return;
  if (!status.model) {
    explainWait();
    return;
  }
  view.closeForm();
  for (const result of results) {
    const turn = { role: 'tool', ...result };
    add(turn, resultNode(turn));
  }
  answer(wanted);
  composer.focus();
}

async function stop() {
  if (!running) return;
  running.controller.abort();
  await running.done;
  composer.focus();
}

async function clear() {
  await stop();
  truncate(0);
  composer.clear();
}

/** Follows the answer, unless the reader has scrolled away from it. */
function isAtEnd() {
  return scroller.scrollHeight - scroller.scrollTop - scroller.clientHeight < NEAR_END;
}

function stayAtEnd(follow) {
  if (follow) scroller.scrollTop = scroller.scrollHeight;
}

let wasAtEnd = true;
scroller.addEventListener('scroll', () => {
  wasAtEnd = isAtEnd();
});
new ResizeObserver(() => stayAtEnd(wasAtEnd && entries.length > 0)).observe(log);

/** The request as it would go now; without a message, the one behind the last answer. */
function currentBody() {
  const wanted = settings.read();
  if (!wanted) return null;
  const draft = { role: 'user', ...composer.draft };
  const next = composer.isEmpty ? withoutAnswer(turns()) : [...turns(), draft];
  if (!next.length) {
    toast('Nothing to copy yet: write a message first.');
    return null;
  }
  return chatBody(status.model?.id ?? '', next, wanted);
}

async function copyAs(write, url, name) {
  const body = currentBody();
  if (!body) return;
  await copyText(write(url, body, Boolean(settings.key) || status.needsKey));
  toast(`The request is in the clipboard, as ${name}.`);
}

function showState() {
  document.body.classList.toggle('streaming', Boolean(running));
  byId('stop-answer').hidden = !running;
  byId('send').hidden = Boolean(running);
  byId('welcome').hidden = entries.length > 0;
  byId('badges').replaceChildren(...settings.badges());
  showContext();
}

/** How full the context is, by the last answer that said. */
function showContext() {
  const usage = turns().findLast((turn) => turn.usage)?.usage;
  const most = status.model?.max_model_len;
  byId('context').hidden = !usage || !most;
  if (!usage || !most) return;
  const used = usage.prompt_tokens + usage.completion_tokens;
  const percent = Math.round((100 * used) / most);
  byId('context-bar').max = most;
  byId('context-bar').value = used;
  byId('context-text').textContent = `${used} of ${most} tokens (${percent} %)`;
}

/** An example question, with all that belongs to it. */
function tryPrompt(prompt) {
  settings.useExample(prompt);
  composer.set({ text: prompt.text, pictures: prompt.sample?.pictures ?? [] });
  send();
}

function fillWelcome() {
  const chips = prompts.map((prompt) => {
    const drawing = prompt.icon ? [icon(prompt.icon)] : [];
    const properties = { type: 'button', class: 'chip', onclick: () => tryPrompt(prompt) };
    return el('button', properties, ...drawing, el('span', {}, prompt.label ?? prompt.text));
  });
  byId('chips').append(...chips);
  const choose = (sample) => composer.addPictures(sample.pictures);
  byId('gallery').append(...samples.map((sample) => sampleButton(sample, () => choose(sample))));
}

addEventListener('keydown', (event) => {
  if (event.key !== 'Escape' || event.defaultPrevented || event.isComposing) return;
  if (running) stop();
  else if (settings.isOverlay) settings.hide();
});
byId('new-chat').addEventListener('click', clear);
byId('stop-answer').addEventListener('click', stop);
byId('theme-toggle').addEventListener('click', toggleTheme);
byId('copy-curl').addEventListener('click', () => copyAs(asCurl, CHAT_URL, 'curl'));
byId('copy-python').addEventListener('click', () => copyAs(asPython, API_URL, 'Python'));

fillWelcome();
showState();
status.poll();
composer.focus();
