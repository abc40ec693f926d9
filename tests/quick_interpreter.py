"""Makes Triton's interpreter several times faster where kernels call functions.

At every call of a function from a kernel, `tl.sum` and the like among them, it looks through all of
triton.language for what it has to replace there, although that is done: once for the launch, and
for the functions of `triton.language` itself at the first call ever. Here it is done just then.
"""

from __future__ import annotations

from typing import Any

import pytest
import triton.language as tl
from triton.runtime import interpreter


def replace_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """Until the test ends."""
    replaced = False

    def call(self: Any, *arguments: Any, **settings: Any) -> Any:
        nonlocal replaced
        if not replaced and any(value is tl.core for value in self.fn.__globals__.values()):
            interpreter._patch_lang(self.fn)
            replaced = True
        return self.rewrite()(*arguments, **settings)

    monkeypatch.setattr(interpreter.InterpretedFunction, "__call__", call)
