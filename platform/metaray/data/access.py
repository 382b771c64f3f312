"""What opens an address to us is kept apart from the address, which is recorded: in this process's environment.

From there the processes that it starts have it, and no other: nodes of a running cluster need it in their own.
"""

import os

from metaray.errors import InputError
from metaray.uris import Uri

ACCESS = "METARAY_ACCESS"
"""Environment variable with whole http addresses, of which spaces are between, signatures and passwords and all."""


def without_access(uri: str) -> str:
    """The address without its signature, which is remembered.

    Raises:
        InputError: If the address contains a password.
    """
    parts = Uri.parse(uri)
    is_web = parts.scheme in ("http", "https")
    if parts.has_password or (parts.has_secret and not is_web):
        where = (
            f"put the whole address into {ACCESS}"
            if is_web
            else "for s3 set AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY"
        )
        raise InputError(f"{parts.shown} holds a credential: leave it out; {where} in the environment of every node")
    if parts.has_secret:
        known = os.environ.get(ACCESS, "").split()
        os.environ[ACCESS] = " ".join([*(one for one in known if Uri.parse(one).identity != parts.identity), uri])
    return parts.identity if is_web else uri


def with_access(uri: str) -> str:
    """The address with the newest complete signature for the same object, if there is one."""
    identity = Uri.parse(uri).identity
    if uri != identity:
        return uri
    fitting = [one for one in os.environ.get(ACCESS, "").split() if Uri.parse(one).identity == identity]
    return fitting[-1] if fitting else uri
