// Where a message is written: its text, its pictures by picker, paste or drop, and its buttons.
import { byId, el, icon, toast } from './dom.js';
import { ACCEPTED, filesOf, NotAPicture, readPicture } from './pictures.js';
import { samples } from './samples.js';

/** The form at the bottom. `onSend` is called when a message shall go. */
export class Composer {
  #text = byId('message');
  #strip = byId('attachments');
  #picker = byId('picker');
  #pictures = [];

  constructor({ onSend }) {
    this.#picker.accept = ACCEPTED;
    this.#text.addEventListener('input', () => this.#fit());
    this.#text.addEventListener('keydown', (event) => {
      if (event.key !== 'Enter' || event.shiftKey || event.isComposing) return;
      event.preventDefault();
      onSend();
    });
    byId('composer').addEventListener('submit', (event) => {
      event.preventDefault();
      onSend();
    });
    byId('add-picture').addEventListener('click', () => this.#picker.click());
    this.#picker.addEventListener('change', async () => {
      await this.addFiles([...this.#picker.files]);
      this.#picker.value = ''; // or the same file could not be picked again
    });
    this.#text.addEventListener('paste', (event) => {
      const files = filesOf(event.clipboardData);
      if (!files.length) return;
      event.preventDefault();
      this.addFiles(files);
    });
    this.#takeDrops();
    const choose = (sample) => {
      byId('samples').hidePopover();
      this.addPictures(sample.pictures);
    };
    byId('samples').append(...samples.map((sample) => sampleButton(sample, () => choose(sample))));
  }

  /** {text, pictures} as they stand. */
  get draft() {
    return { text: this.#text.value.trim(), pictures: [...this.#pictures] };
  }

  get isEmpty() {
    return !this.#text.value.trim() && !this.#pictures.length;
  }

  /** Replaces what is written. */
  set({ text, pictures }) {
    this.#text.value = text;
    this.#pictures = [...pictures];
    this.#fit();
    this.#showPictures();
    this.focus();
  }

  clear() {
    this.set({ text: '', pictures: [] });
  }

  /** Not on a phone, where it would open the keyboard. */
  focus() {
    if (matchMedia('(pointer: fine)').matches) this.#text.focus();
  }

  /** Attaches files in their order; says which are no pictures. */
  async addFiles(files) {
    const read = await Promise.allSettled(files.map(readPicture));
    const refused = read.filter(({ status }) => status === 'rejected').map(({ reason }) => reason);
    this.addPictures(read.filter(({ status }) => status === 'fulfilled').map(({ value }) => value));
    if (refused.length) toast(refused.map(refusalText).join('\n'));
  }

  addPictures(pictures) {
    this.#pictures.push(...pictures);
    this.#showPictures();
    this.focus();
  }

  #showPictures() {
    const thumbnails = this.#pictures.map((picture, index) => {
      const remove = () => {
        this.#pictures.splice(index, 1);
        this.#showPictures();
        this.focus();
      };
      const label = `Remove ${picture.name}`;
      const properties = { type: 'button', 'aria-label': label, title: label, onclick: remove };
      const image = el('img', { src: picture.url, alt: picture.name });
      return el('li', {}, image, el('button', properties, icon('cross')));
    });
    this.#strip.replaceChildren(...thumbnails);
    this.#strip.hidden = !thumbnails.length;
  }

  /** The field grows with its text; style.css says how far. */
  #fit() {
    this.#text.style.height = 'auto';
    this.#text.style.height = `${this.#text.scrollHeight}px`;
  }

  /** Anywhere on the page: a file that misses the field must not replace the page. */
  #takeDrops() {
    const hasFiles = (event) => event.dataTransfer?.types.includes('Files');
    const highlight = (on) => document.body.classList.toggle('dropping', on);
    addEventListener('dragover', (event) => {
      if (!hasFiles(event)) return;
      event.preventDefault();
      highlight(true);
    });
    addEventListener('dragleave', (event) => {
      if (!event.relatedTarget) highlight(false);
    });
    addEventListener('drop', (event) => {
      if (!hasFiles(event)) return;
      event.preventDefault();
      highlight(false);
      this.addFiles(filesOf(event.dataTransfer));
    });
  }
}

/** An example picture as a button. */
export function sampleButton({ label, pictures }, choose) {
  const images = pictures.map(({ url }) => el('img', { src: url, alt: '' }));
  const properties = { type: 'button', class: 'sample', onclick: choose };
  return el('button', properties, el('span', { class: 'drawings' }, ...images), el('span', {}, label));
}

function refusalText(reason) {
  return reason instanceof NotAPicture ? reason.message : 'The file cannot be read.';
}
