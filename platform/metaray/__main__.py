"""`python -m metaray` is the `metaray` command."""

from metaray.cli import main

if __name__ == "__main__":
    main()
