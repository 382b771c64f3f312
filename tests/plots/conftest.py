"""What the pictures of stores are drawn from."""

from tests.data.conftest import make_store

__all__ = ["make_store"]
