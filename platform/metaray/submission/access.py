"""Which cluster, and as whom: addresses, tokens, and what must not cross a network in the clear."""

import os
import stat
from collections.abc import Mapping
from ipaddress import ip_address
from pathlib import Path
from urllib.parse import urlsplit

from metaray.errors import InputError, redacted

ADDRESS_VARIABLES = ("RAY_API_SERVER_ADDRESS", "RAY_ADDRESS")
TOKEN, TOKEN_PATH, DEFAULT_TOKEN_PATH = "RAY_AUTH_TOKEN", "RAY_AUTH_TOKEN_PATH", "~/.ray/auth_token"
WHERE_TOKENS_ARE = f"put its token into {TOKEN}, or into {DEFAULT_TOKEN_PATH} or another file that {TOKEN_PATH} names"


def cluster_address(flag: str | None, environment: Mapping[str, str] = os.environ) -> str:
    """URL of the cluster's dashboard, which takes jobs.

    Raises:
        InputError: If nothing names one, or it is no such URL.
    """
    named = {name: environment.get(name, "") for name in ADDRESS_VARIABLES}
    found = flag or next((value for value in named.values() if value.startswith(("http://", "https://"))), None)
    if found is None:
        raise InputError(
            f"name the cluster: --address http://HOST:8265, or set {ADDRESS_VARIABLES[0]}. It is the address of Ray's "
            "dashboard, not that of RAY_ADDRESS=HOST:6379"
        )
    shown = redacted(found)
    try:
        parts = urlsplit(found)
        right = parts.scheme in ("http", "https") and parts.hostname and parts.port != 0
    except ValueError:
        right = False
    if not right or parts.query or parts.fragment:
        raise InputError(f"cluster address {shown!r}: give the URL of Ray's dashboard, for instance http://head:8265")
    if "@" in parts.netloc:
        raise InputError(f"cluster address {shown!r} holds a credential; {WHERE_TOKENS_ARE}")
    return found.rstrip("/")


def is_loopback(address: str) -> bool:
    """Whether an address never leaves this machine."""
    host = urlsplit(address).hostname or ""
    try:
        return ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


def check_transport(address: str, *, insecure: bool) -> None:
    """Refuse to send a token and code over a network that anybody on it can read and change.

    Raises:
        InputError: Unless it is encrypted, stays on this machine, or `insecure` accepts that.
    """
    if insecure or address.startswith("https://") or is_loopback(address):
        return
    host, port = urlsplit(address).hostname, urlsplit(address).port or 80
    raise InputError(
        f"{address} is plain HTTP to another machine: whoever shares the network can read the token and run code as "
        f"you. Use https://, or a tunnel (`ssh -NL {port}:localhost:{port} {host}`, then --address "
        f"http://localhost:{port}), or accept it with --insecure"
    )


def read_token(environment: Mapping[str, str] = os.environ) -> str | None:
    """The user's token, from where Ray itself would take it; None without one.

    Raises:
        InputError: If its file is missing, empty or readable by others.
    """
    if token := environment.get(TOKEN, "").strip():
        return _checked(token, TOKEN)
    named = environment.get(TOKEN_PATH)
    path = Path(named or DEFAULT_TOKEN_PATH).expanduser()
    if not path.is_file():
        if named:
            raise InputError(f"{TOKEN_PATH} names {str(path)!r}, and there is no such file")
        return None
    if mode := stat.S_IMODE(path.stat().st_mode) & 0o077:
        raise InputError(f"others can get at the token in {path} (mode {mode | 0o600:04o}): chmod 600 {path}")
    try:
        return _checked(path.read_text().strip(), str(path))
    except (OSError, UnicodeDecodeError) as error:
        raise InputError(f"the token in {path} cannot be read: {error}") from None


def _checked(token: str, where: str) -> str:
    if not token or not token.isascii() or not token.isprintable() or " " in token:
        raise InputError(f"{where} holds no token")  # nothing of it is shown
    return token
