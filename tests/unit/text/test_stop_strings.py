from __future__ import annotations

import itertools

import pytest
from hypothesis import given
from hypothesis import strategies as st

from caravan.text.stop_strings import StopMatcher

AB = st.text("ab", max_size=40)
STOPS = st.lists(st.text("ab", min_size=1, max_size=6), max_size=4)


@given(text=AB, stop_strings=STOPS, cuts=st.lists(st.integers(0, 40)))
def test_finds_what_a_search_of_every_prefix_finds(
    text: str, stop_strings: list[str], cuts: list[int]
) -> None:
    matcher = StopMatcher(stop_strings)
    bounds = [0, *sorted(min(cut, len(text)) for cut in cuts), len(text)]
    for start, end in itertools.pairwise(bounds):
        found = matcher.find(text[start:end])
        ends = (
            (n, max((s for s in stop_strings if text[:n].endswith(s)), key=len))
            for n in range(start + 1, end + 1)
            if any(text[:n].endswith(s) for s in stop_strings)
        )
        first = next(ends, None)
        if first is not None:
            assert found == (first[0] - start, first[1])
            return
        assert found is None
        beginnings = {s[:n] for s in stop_strings for n in range(1, len(s))}
        assert matcher.held == max(
            (len(b) for b in beginnings if text[:end].endswith(b)), default=0
        )


@pytest.mark.parametrize(
    ("stop_strings", "text", "expected"),
    [
        (["abcd", "bc"], "xabcd", (4, "bc")),
        (["bc", "abc"], "xabcd", (4, "abc")),
        (["aab"], "aaaab", (5, "aab")),
        (["a", "ab"], "ab", (1, "a")),
        (["aabaaac"], "aabaaabaaac", (11, "aabaaac")),
        (["ac", "abab"], "abac", (4, "ac")),
        (["\u00e9\U0001f600"], "\u00e9\u00e9\U0001f600", (3, "\u00e9\U0001f600")),
        (["abc"], "ab ab ac bc", None),
        ([], "abc", None),
    ],
)
def test_the_first_to_be_complete_wins(
    stop_strings: list[str], text: str, expected: tuple[int, str] | None
) -> None:
    assert StopMatcher(stop_strings).find(text) == expected


def test_an_empty_stop_string_is_a_bug() -> None:
    with pytest.raises(AssertionError, match="empty"):
        StopMatcher(["a", ""])
