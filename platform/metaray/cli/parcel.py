"""What a job would take along, as `metaray submit --dry-run` prints it."""

import json
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from metaray.submission.packing import Pack


def print_pack(pack: "Pack", *, as_json: bool) -> None:
    """Every file with its size, and every file that stays here with the reason."""
    sizes = pack.sizes
    if as_json:
        left = [{"file": name, "why": why} for name, why in pack.left]
        tree = {"files": sizes, "size_bytes": sum(sizes.values()), "left_out": left}
        print(json.dumps(tree, indent=2))
        return
    print(f"would send {pack.summary()}; nothing is sent")
    own = {name: size for name, size in sizes.items() if name.startswith("metaray/") or name in pack.made}
    for name, size in sizes.items():
        if name not in own:
            print(f"{size:12,}  {name}")
    print(f"{sum(own.values()):12,}  metaray itself ({len(own)} files)")
    if pack.left:
        print(f"left out: {len(pack.left)} files; --include PATTERN takes files along")
    for name, why in pack.left:
        print(f"  {name}: {why}")
