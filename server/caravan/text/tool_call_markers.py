"""Takes the special tokens around calls out of a model's text."""

from __future__ import annotations

from collections.abc import Iterator

PYTHON_START = "<|python_start|>"
PYTHON_END = "<|python_end|>"
MARKERS = (PYTHON_START, PYTHON_END)

_STEM = "<|python_"  # how all of them begin, and no other character of them is a `<`
_LONGEST = max(map(len, MARKERS))


class MarkerSplitter:
    """Splits text that comes in pieces into markers and what stands between them."""

    def __init__(self) -> None:
        self._held = ""  # the beginning of a marker, perhaps

    def split(self, text: str) -> Iterator[str]:
        """Goes on with `text`: markers, each as a whole, and other text, never empty."""
        text = self._held + text
        done = start = 0
        while (start := text.find(_STEM, start)) >= 0:
            marker = next((m for m in MARKERS if text.startswith(m, start)), None)
            if marker is None:
                start += len(_STEM)
                continue
            if done < start:
                yield text[done:start]
            yield marker
            done = start = start + len(marker)
        end = self._uncertain(text, done)
        self._held = text[end:]
        if done < end:
            yield text[done:end]

    def flush(self) -> str:
        """The rest of the text, when no more comes."""
        held, self._held = self._held, ""
        return held

    @staticmethod
    def _uncertain(text: str, done: int) -> int:
        """Where the end of the text that could become a marker begins."""
        start = text.rfind("<", max(done, len(text) - _LONGEST + 1))
        if start >= 0 and any(marker.startswith(text[start:]) for marker in MARKERS):
            return start
        return len(text)
