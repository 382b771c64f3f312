"""`python -m metaray` is the `metaray` command."""

from metaray.cli import main

main()
