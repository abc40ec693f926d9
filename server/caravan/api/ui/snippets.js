// A request as a command for a shell and as a program, ready to run. The key is never in them.

// Linux takes 128 KiB in one argument, and a character has at most 3 bytes for each of its units.
const MAX_ARGUMENT = 40_000;
const KEY_VARIABLE = 'CARAVAN_API_KEY';

/** For bash, zsh and other shells like them. */
export function asCurl(url, body, needsKey) {
  const headers = ["-H 'Content-Type: application/json'"];
  if (needsKey) headers.push(`-H "Authorization: Bearer $${KEY_VARIABLE}"`);
  const head = [`curl --no-buffer ${shellQuoted(url)}`, ...headers];
  const json = JSON.stringify(body);
  if (json.length <= MAX_ARGUMENT) {
    return `${[...head, `-d ${shellQuoted(JSON.stringify(body, null, 2))}`].join(' \\\n  ')}\n`;
  }
  // One line of JSON, which begins with a brace: no line of it can be the word that ends it.
  return `${[...head, "-d @- <<'END_OF_BODY'"].join(' \\\n  ')}\n${json}\nEND_OF_BODY\n`;
}

/** For Python with the package `openai`. */
export function asPython(baseUrl, body, needsKey) {
  const key = needsKey ? `os.environ["${KEY_VARIABLE}"]` : '"none"';
  const fields = Object.entries(body).map(([name, value]) => `    ${name}=${python(value, 1)},`);
  return [
    ...(needsKey ? ['import os', ''] : []),
    'from openai import OpenAI',
    '',
    `client = OpenAI(base_url=${python(baseUrl, 0)}, api_key=${key})`,
    'stream = client.chat.completions.create(',
    ...fields,
    ')',
    'for chunk in stream:',
    '    for choice in chunk.choices:',
    '        print(choice.delta.content or "", end="", flush=True)',
    ...(body.tools ? TOOL_LINES : []),
    'print()',
    '',
  ].join('\n');
}

const TOOL_LINES = [
  '        for call in choice.delta.tool_calls or []:',
  '            print(call.to_json(indent=None))',
];

function shellQuoted(text) {
  return `'${text.replaceAll("'", "'\\''")}'`;
}

/** A value as Python writes it. Every escape of a JSON string is one of Python's, too. */
function python(value, depth) {
  if (value === null) return 'None';
  if (value === true) return 'True';
  if (value === false) return 'False';
  if (typeof value !== 'object') return JSON.stringify(value);
  const items = Array.isArray(value)
    ? value.map((item) => python(item, depth + 1))
    : Object.entries(value).map(([k, v]) => `${JSON.stringify(k)}: ${python(v, depth + 1)}`);
  const [open, close] = Array.isArray(value) ? '[]' : '{}';
  if (!items.length) return open + close;
  const indent = '    '.repeat(depth);
  return `${open}\n${items.map((item) => `${indent}    ${item},\n`).join('')}${indent}${close}`;
}
