"""Decoding and tiling of pictures: time against Pillow alone, and memory per pixel.

    python kernels/bench/pictures.py --json kernels/bench/results/pictures.json

Time: `tile_image`, which the decoder's processes run, on the photographs that come with Meta's
package, against its floor: Pillow's decoding of the file and the two resizes that the tiles need.
The rest is conversion, hash and cutting.

Memory: the largest resident set of a fresh process that tiles a picture of `--pixels`, less that of
one that tiles a small one, per pixel. `images/decoder.py` bounds its processes by that. Linux only.
"""

from __future__ import annotations

import argparse
import importlib
import io
import subprocess
import sys
import tempfile
from functools import partial
from pathlib import Path

from PIL import Image
from results_file import write_results
from timing import pairs

from caravan.images.decode import tile_image
from caravan.tiles import TileLayout

LAYOUT = TileLayout()
MAX_PIXELS = 1 << 30
FORMATS = (("JPEG", "RGB"), ("PNG", "RGB"), ("PNG", "RGBA"), ("WEBP", "RGB"), ("WEBP", "RGBA"))
SMALL = 64  # pixels, of a side

_PEAK = """
import re, sys
from caravan.images.decode import tile_image
from caravan.tiles import TileLayout
tile_image(open(sys.argv[1], "rb").read(), TileLayout(), 16, 1 << 30)
print(re.search(r"VmHWM:\\s*(\\d+) kB", open("/proc/self/status").read())[1])
"""


def floor(data: bytes) -> None:
    """What cannot be left out: decoding, and the picture on its canvas and in one tile."""
    picture = Image.open(io.BytesIO(data))
    picture.load()
    grid = LAYOUT.grid(*picture.size)
    picture.resize(LAYOUT.resized(*picture.size, grid), Image.Resampling.BILINEAR)
    picture.resize((LAYOUT.tile_size, LAYOUT.tile_size), Image.Resampling.BILINEAR)


def peak_bytes(side: int, kind: str, mode: str) -> int:
    """Of a process that tiles a smooth picture of `side` x `side` pixels."""
    with tempfile.NamedTemporaryFile() as file:
        Image.linear_gradient("L").resize((side, side)).convert(mode).save(file, kind)
        file.flush()
        command = [sys.executable, "-c", _PEAK, file.name]
        return 1024 * int(subprocess.run(command, check=True, capture_output=True).stdout)


def main() -> None:
    """Prints two tables; writes them with what made them."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--repeats", type=int, default=15)
    parser.add_argument("--pixels", type=int, default=40_000_000)
    parser.add_argument("--json", type=Path, default=None)
    arguments = parser.parse_args()
    folder = Path(importlib.import_module("llama_models").__path__[0]) / "resources"
    times, memory = [], []
    for name in ("dog.jpg", "pasta.jpeg"):
        data = (folder / name).read_bytes()
        ours = partial(tile_image, data, LAYOUT, LAYOUT.max_tiles, MAX_PIXELS)
        least, whole, ratio = pairs(partial(floor, data), ours, arguments.repeats)
        width, height = Image.open(io.BytesIO(data)).size
        print(f"{name:12} {width} x {height}: {1e3 * whole:6.1f} ms, {ratio:.2f} of the floor")
        times.append({"name": name, "s": whole, "floor_s": least, "ratio": ratio})
    side = int(arguments.pixels**0.5)
    for kind, mode in FORMATS:
        added = peak_bytes(side, kind, mode) - peak_bytes(SMALL, kind, mode)
        print(f"{kind:5} {mode:5} {side} x {side}: {added / side**2:5.1f} bytes per pixel")
        memory.append({"format": kind, "mode": mode, "bytes_per_pixel": added / side**2})
    write_results(arguments.json, pixels=side**2, times=times, memory=memory)


if __name__ == "__main__":
    main()
