"""A case of the GPU benchmark: one call, what it must move and compute, and who else can do it.

A bench module (`attention`, `experts`, `dense`, `rows`) lists its cases:

    def cases(device: torch.device, *, small: bool) -> list[Case]:

`small`: sizes that Triton's interpreter finishes in a second, for `gpu.py --dry-run` on the CPU,
and fp16 instead of bf16, in which the interpreter computes matrix products wrongly.
Listing allocates nothing. `InputSets` makes a case's tensors when the case is first called, and
`gpu.py` forgets a case once it is measured, so a case may fill the card:

    def make() -> tuple[Tensor, Tensor]:
        return torch.randn(16, 5120, device=device), torch.randn(8192, 5120, device=device)

    sets = InputSets(make, num_bytes=..., device=device)
    Case(
        name="linear 16 x 8192 x 5120",
        run=sets.bind(lambda x, weight: linear(x, weight)),
        peers={"torch": sets.bind(F.linear)},
        bytes=...,  # that must be moved: each input read once, each output written once
        flops=...,  # that must be done: two for each multiplication with its addition
        dtype=torch.bfloat16,
    )

Calls are captured in CUDA graphs: no synchronisation, and the same work each time.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field

import torch

Call = Callable[[], object]

ROUND_L2S = 3  # a round of input sets is at least so many times the L2: none is read from it
MAX_SETS = 256  # of smaller sets a round may stay in the L2, as activations do in a model


@dataclass(frozen=True, slots=True)
class Hardware:
    """What the card at hand does, measured in the run that divides by it."""

    name: str
    bytes_per_s: float  # of a large copy, counting bytes read and bytes written
    flops_per_s: Mapping[torch.dtype, float]  # of a matrix product of 8192 x 8192 x 8192


@dataclass(frozen=True, slots=True)
class Case:
    """One call to time, beside its peers: other calls that compute the same."""

    name: str
    run: Call
    peers: Mapping[str, Call] = field(default_factory=dict)
    bytes: int = 0  # each input read once, each output written once
    flops: int = 0
    dtype: torch.dtype = torch.bfloat16  # whose matrix products the flops are

    def floor_s(self, hardware: Hardware) -> float:
        """Seconds that no implementation can beat at the card's rates."""
        moving = self.bytes / hardware.bytes_per_s
        computing = self.flops / hardware.flops_per_s[self.dtype] if self.flops else 0.0
        return max(moving, computing)

    def compute_bound(self, hardware: Hardware) -> bool:
        """Whether arithmetic, not memory, sets the floor."""
        return self.floor_s(hardware) > self.bytes / hardware.bytes_per_s


class InputSets:
    """Equal calls on different tensors, in turn: what one call reads, the last has not cached."""

    def __init__(
        self, make: Callable[[], tuple[object, ...]], num_bytes: int, device: torch.device
    ) -> None:
        """`make` draws one set of arguments; `num_bytes`: of the tensors in it."""
        self._make = make
        self._count = 1
        if device.type == "cuda":
            cache = torch.cuda.get_device_properties(device).L2_cache_size
            self._count = min(MAX_SETS, 1 + ROUND_L2S * cache // max(1, num_bytes))
        self._sets: list[tuple[object, ...]] = []

    def __len__(self) -> int:
        return self._count

    def __iter__(self) -> Iterator[tuple[object, ...]]:
        if not self._sets:
            self._sets = [self._make() for _ in range(self._count)]
        return iter(self._sets)

    def bind(self, function: Callable[..., object]) -> BoundCall:
        """`function` on the next set at each call; every bound function starts at the first."""
        return BoundCall(function, self)


class BoundCall:
    """A function that takes its arguments from input sets in turn."""

    def __init__(self, function: Callable[..., object], sets: InputSets) -> None:
        self._function = function
        self._sets = sets
        self._turn: Iterator[tuple[object, ...]] = iter(())

    @property
    def round_len(self) -> int:
        """Calls until the first set comes again."""
        return len(self._sets)

    def from_first(self) -> BoundCall:
        """The same function over the same sets, from the first one."""
        return BoundCall(self._function, self._sets)

    def __call__(self) -> object:
        """Calls the function on the next set."""
        arguments = next(self._turn, None)
        if arguments is None:
            self._turn = iter(self._sets)
            arguments = next(self._turn)
        return self._function(*arguments)


def from_first(call: Call) -> Call:
    """The same call, which begins with its first input set."""
    return call.from_first() if isinstance(call, BoundCall) else call


def round_len(call: Call) -> int:
    """Calls until `call` sees the same tensors again; 1 of a call that is not bound to sets."""
    return int(getattr(call, "round_len", 1))
