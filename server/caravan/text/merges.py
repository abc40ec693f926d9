"""Whether a byte-pair vocabulary with a list of merges tokenises alike without the list.

Hugging Face joins neighbours in the order of the merge list. tiktoken has no list: it joins the
pair whose union has the lowest id, and takes a piece of text that is a token as it stands. Both
give the same tokens if the merges stand in the order of their unions' ids and the list leaves out
no pair that tiktoken would join. That is so if

- it leaves out none at all, as in files made from a tokenizer.model; or
- each merge joins tokens of lower ids than their union's, and each token that tiktoken can make is
  made from a pair in the list, as in files that a trainer wrote. To see which pair makes a token,
  take it alone: its neighbours in a text decide whether it is made, never of which pair.

A token that no pair makes is harmless only with `ignore_merges`, by which Hugging Face too takes a
piece that is a token as it stands.
"""

from __future__ import annotations

import sys
from collections.abc import Iterable, Mapping, Sequence
from itertools import pairwise

Ids = Mapping[str, int]


def merge_conflict(
    ids: Ids, merges: Iterable[str | Sequence[str]], *, ignore_merges: bool
) -> str | None:
    """Where the list and the ids may give different tokens; None if they never do.

    `ids` has one character per byte; a merge is `"left right"` or `["left", "right"]`.
    """
    listed = dict.fromkeys(ids, 0)  # bit n: the pair whose left part has n characters
    last = -1
    unordered = None
    for position, entry in enumerate(merges):
        pair = entry.split(" ") if isinstance(entry, str) else entry
        token = "".join(pair)
        if len(pair) != 2 or token not in ids or pair[0] not in ids or pair[1] not in ids:
            return f"merge {position} ({entry!r}) does not join two tokens to a third"
        token_id = ids[token]
        if token_id < last:
            return (
                f"merge {position} ({entry!r}) makes token {token_id}, but a merge before it makes "
                f"token {last}; merges must stand in the order of the ids they make"
            )
        if ids[pair[0]] > token_id or ids[pair[1]] > token_id:
            unordered = f"merge {position} ({entry!r}) makes token {token_id} of a higher one"
        last = token_id
        listed[token] |= 1 << len(pair[0])
    complete = all(_lists_all_pairs(token, listed[token], ids) for token in ids)
    if complete and ignore_merges:
        return None
    if unordered and not complete:
        return unordered
    reasons = (
        _pair_conflict(token, listed[token], ids, ignore_merges=ignore_merges) for token in ids
    )
    return next(filter(None, reasons), None)


def _lists_all_pairs(token: str, listed: int, ids: Ids) -> bool:
    for length in range(1, len(token)):
        if token[:length] in ids and token[length:] in ids and not listed >> length & 1:
            return False
    return True


def _pair_conflict(token: str, listed: int, ids: Ids, *, ignore_merges: bool) -> str | None:
    parts = _parts(token, ids)
    if len(parts) == 2 and not listed >> len(parts[0]) & 1:
        return f"by the ids, token {ids[token]} is made of {parts!r}, but no merge says so"
    if len(parts) > 2 and not ignore_merges:
        return f"no merge makes token {ids[token]}, and 'ignore_merges' is not set"
    return None


def _parts(token: str, ids: Ids) -> list[str]:
    """What joining the pair with the lowest id, again and again, makes of the token's bytes.

    The last step, which would make the token itself, is left out.
    """
    parts = list(token)
    while len(parts) > 2:
        unions = [ids.get(left + right, sys.maxsize) for left, right in pairwise(parts)]
        lowest = min(unions)
        if lowest == sys.maxsize:
            break
        at = unions.index(lowest)
        parts[at : at + 2] = [parts[at] + parts[at + 1]]
    return parts
