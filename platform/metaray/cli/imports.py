"""Where the user's own packages are found."""

import sys
from pathlib import Path


def import_from_here() -> None:
    """Let the user's own packages be found in the working directory, as those of a recipe are."""
    here = str(Path.cwd())
    if here not in sys.path:
        sys.path.append(here)
