from __future__ import annotations

import itertools

import tiktoken
from hypothesis import event, given, settings
from hypothesis import strategies as st
from tokenizers.models import BPE

from caravan.text.merges import merge_conflict

WORDS = ["".join(word) for n in range(1, 8) for word in itertools.product("ab", repeat=n)]
Pair = tuple[str, str]


@st.composite
def vocabularies(draw: st.DrawFn) -> tuple[dict[str, int], list[Pair]]:
    """Tokens over two letters and merges in the order of ids, some missing, some superfluous."""
    tokens = ["a", "b"]
    merges: set[Pair] = set()
    for _ in range(draw(st.integers(1, 8))):
        pair = (draw(st.sampled_from(tokens)), draw(st.sampled_from(tokens)))
        if "".join(pair) not in tokens and len("".join(pair)) < 8:
            tokens.append("".join(pair))
            merges.add(pair)
    if draw(st.booleans()):
        tokens[2:] = draw(st.permutations(tokens[2:]))
    possible = [
        (token[:n], token[n:])
        for token in tokens
        for n in range(1, len(token))
        if token[:n] in tokens and token[n:] in tokens
    ]
    changed = draw(
        st.sampled_from([set(), set(possible), set(draw(st.permutations(possible))[:3])])
    )
    merges = merges ^ changed if draw(st.booleans()) else merges | changed
    ids = {token: token_id for token_id, token in enumerate(tokens)}
    return ids, sorted(merges, key=lambda pair: ids["".join(pair)])


@given(vocabulary=vocabularies(), ignore_merges=st.booleans())
@settings(deadline=None, max_examples=150)
def test_what_is_accepted_tokenises_alike(
    vocabulary: tuple[dict[str, int], list[Pair]], ignore_merges: bool
) -> None:
    ids, merges = vocabulary
    conflict = merge_conflict(ids, merges, ignore_merges=ignore_merges)
    event("accepted" if conflict is None else "refused")
    if conflict is None:
        with_list = BPE(ids, merges, ignore_merges=ignore_merges)
        without = tiktoken.Encoding(
            "test",
            pat_str=".+",
            mergeable_ranks={token.encode(): token_id for token, token_id in ids.items()},
            special_tokens={},
        )
        for word in WORDS:
            tokens = [token.id for token in with_list.tokenize(word)]
            assert tokens == without.encode_ordinary(word), word


def test_merges_of_a_trainer_and_all_merges_are_accepted() -> None:
    ids = {"a": 0, "b": 1, "c": 2, "bc": 3, "ab": 4, "abc": 5}
    trained = [("b", "c"), ("a", "b"), ("a", "bc")]
    for merges in (trained, [*trained, ("ab", "c")]):
        for ignore_merges in (False, True):
            assert merge_conflict(ids, merges, ignore_merges=ignore_merges) is None


def test_conflicts_are_named() -> None:
    ids = {"a": 0, "b": 1, "c": 2, "bc": 3, "ab": 4, "abc": 5}
    disordered = merge_conflict(ids, ["a b", "b c", "a bc"], ignore_merges=True)
    assert disordered is not None
    assert disordered.startswith(
        "merge 1 ('b c') makes token 3, but a merge before it makes token 4"
    )
    useless = merge_conflict(ids, ["b c", "a b", "ab c"], ignore_merges=True)
    assert useless == "by the ids, token 5 is made of ['a', 'bc'], but no merge says so"
    unreachable = {"a": 0, "b": 1, "bb": 2, "aab": 3}
    assert merge_conflict(unreachable, ["b b"], ignore_merges=True) is None
    assert merge_conflict(unreachable, ["b b"], ignore_merges=False) == (
        "no merge makes token 3, and 'ignore_merges' is not set"
    )
    higher = {"a": 0, "b": 1, "aba": 2, "ab": 3, "ba": 4}
    assert merge_conflict(higher, ["ab a", "a b", "b a"], ignore_merges=True) == (
        "merge 0 ('ab a') makes token 2 of a higher one"
    )
