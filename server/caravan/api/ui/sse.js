// Server-sent events from a stream of bytes, wherever its chunks are cut.

/**
 * Yields the data of each event. Comments (`: ping`) and other fields are skipped; an event that
 * the stream ends in the middle of is dropped, as the standard asks. Lines end with LF or CRLF.
 * Leaving the loop early cancels the stream.
 */
export async function* readEvents(stream) {
  let data = [];
  for await (const line of readLines(stream)) {
    if (line.startsWith('data:')) {
      data.push(line.slice(line[5] === ' ' ? 6 : 5));
    } else if (line === '' && data.length) {
      yield data.join('\n');
      data = [];
    }
  }
}

async function* readLines(stream) {
  const reader = stream.getReader();
  const decoder = new TextDecoder(); // holds back a character until all its bytes are there
  let rest = '';
  try {
    for (;;) {
      const { done, value } = await reader.read();
      if (done) return;
      const lines = (rest + decoder.decode(value, { stream: true })).split('\n');
      rest = lines.pop();
      for (const line of lines) yield line.endsWith('\r') ? line.slice(0, -1) : line;
    }
  } finally {
    await reader.cancel().catch(() => {}); // an aborted stream has nothing to cancel
  }
}
