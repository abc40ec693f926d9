// Pictures from files: what they are by their first bytes, and as data: URLs, byte for byte.

/** For the file picker; what counts is `typeOf`. */
export const ACCEPTED = 'image/png,image/jpeg,image/webp,image/gif';

const MAGIC_BYTES = 12;
const MAGIC = [
  ['image/png', 0, [0x89, 0x50, 0x4e, 0x47, 0x0d, 0x0a, 0x1a, 0x0a]],
  ['image/jpeg', 0, [0xff, 0xd8, 0xff]],
  ['image/gif', 0, [0x47, 0x49, 0x46, 0x38]],
  ['image/webp', 8, [0x57, 0x45, 0x42, 0x50]],
];

/** A file that the server would not take. */
export class NotAPicture extends Error {}

/** {name, url} of a file. The server reads types from the bytes, too: names and browsers guess. */
export async function readPicture(file) {
  const name = file.name || 'picture';
  const type = typeOf(new Uint8Array(await file.slice(0, MAGIC_BYTES).arrayBuffer()));
  if (!type) throw new NotAPicture(`${name}: only PNG, JPEG, WebP and GIF pictures can be sent.`);
  return { name, url: await dataUrl(new Blob([file], { type })) };
}

/** The files of a drop or a paste. */
export function filesOf(transfer) {
  return [...(transfer?.files ?? [])];
}

function typeOf(bytes) {
  const found = MAGIC.find(([, at, magic]) => magic.every((byte, i) => bytes[at + i] === byte));
  return found?.[0];
}

function dataUrl(blob) {
  return new Promise((resolve, reject) => {
    const reader = new FileReader();
    reader.onload = () => resolve(reader.result);
    reader.onerror = () => reject(new NotAPicture('The file cannot be read.'));
    reader.readAsDataURL(blob);
  });
}
