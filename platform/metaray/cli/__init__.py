"""The command line: argument parsing and printing only."""

from metaray.cli.app import main

__all__ = ["main"]
