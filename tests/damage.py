"""Random damage to files, as disks, cables and editors do it: the same for the same seed."""

import random

KINDS = ("flip", "byte", "zero", "cut", "splice", "repeat")


def damaged(raw: bytes, kind: str, rng: random.Random) -> bytes:
    """`raw` with one random change of a kind."""
    at, some = rng.randrange(len(raw)), rng.randrange(1, 64)
    out = bytearray(raw)
    if kind == "flip":
        out[at] ^= 1 << rng.randrange(8)
    elif kind == "byte":
        out[at] = (out[at] + some) % 256
    elif kind == "zero":
        out[at : at + 16] = bytes(len(out[at : at + 16]))
    elif kind == "cut":
        del out[at:]
    elif kind == "splice":
        del out[at : at + some]
    else:
        out[at:at] = out[at : at + some]
    return bytes(out)
