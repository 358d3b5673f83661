"""Tiles of a fractal are computed in processes of their own: the CPU works, and the worker goes on reading and renewing its leases.

Run it with `streamworker run fractals.py`, and order a tile: redis-cli XADD tiles '*' name seahorse x -0.75 y 0.1 size 0.05
"""

import zlib
from datetime import timedelta

from pydantic import BaseModel, Field

from streamworker import Context, Reject, StreamWorker

app = StreamWorker(group="fractals")
SIDE, DEEPEST = 64, 200


class Tile(BaseModel):
    """A square to be computed: its centre, and how large it is."""

    name: str
    x: float
    y: float
    size: float = Field(gt=0)


class Drawn(BaseModel):
    """A tile that has been computed: how many of its points are inside, and its grey levels, compressed."""

    name: str
    inside: int
    pixels: str


@app.handler("tiles", executor="process", concurrency=2, timeout=timedelta(seconds=30))
def draw(tile: Tile, ctx: Context) -> None:
    if tile.size > 4:
        raise Reject("there is nothing to be seen from so far away")
    step = tile.size / SIDE
    left, top = tile.x - tile.size / 2, tile.y - tile.size / 2
    levels = bytes(depth(complex(left + column * step, top + row * step)) for row in range(SIDE) for column in range(SIDE))
    ctx.publish("drawn", Drawn(name=tile.name, inside=levels.count(DEEPEST), pixels=zlib.compress(levels).hex()))
    ctx.log.info("tile.drawn", name=tile.name)


def depth(point: complex) -> int:
    """After how many steps a point is found to be outside; the deepest where it is not."""
    z = 0j
    for step in range(DEEPEST):
        z = z * z + point
        if abs(z) > 2:
            return step
    return DEEPEST
