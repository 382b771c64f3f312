"""What looks like a credential: by the names on a file's path, and by its content."""

import re
from pathlib import PurePosixPath

SUFFIXES = frozenset(
    {
        *(".env", ".gpg", ".jks", ".kdbx", ".key", ".keystore", ".kubeconfig", ".ovpn", ".p12", ".pem", ".pfx"),
        *(".pgpass", ".pkcs12", ".ppk", ".tfstate", ".tfvars"),
    }
)
SOURCES = frozenset({".c", ".cc", ".cpp", ".cu", ".h", ".ipynb", ".py", ".pyi", ".pyx", ".sh"})
"""Files that may be about tokens and passwords without holding any: their folders' names count, not their own."""
WORDS = re.compile(
    r"(^|[-_. ])(secrets?|cred(ential)?s?|tokens?|passw(or)?ds?|passphrases?|netrc|pypirc|npmrc|htpasswd|kube-?config"
    r"|id[-_](rsa|dsa|ecdsa|ed25519)|(private|api|access|secret|auth|deploy|signing|ssh|encryption)[-_ ]?keys?"
    r"|auth[-_ ]?tokens?|service[-_ ]?accounts?([-_ ]?keys?)?)([-_. ]|$)",
    re.IGNORECASE,
)
_VALUE = rb"(?=[\w+/=.~-]*[0-9])(?=[\w+/=.~-]*[A-Za-z])[\w+/=.~-]{20,}"
KEYS: dict[str, re.Pattern[bytes]] = {
    "a private key": re.compile(rb"-----BEGIN [A-Z0-9 ]*PRIVATE KEY( BLOCK)?-----|PuTTY-User-Key-File-\d:"),
    "an access key of AWS": re.compile(rb"\b(AKIA|ASIA|ABIA|ACCA)[A-Z0-9]{16}\b"),
    "a token of GitHub or GitLab": re.compile(
        rb"\b(gh[pousr]_[A-Za-z0-9]{36}|github_pat_\w{40}|gl(pat|ptt|rt|dt)-[\w-]{20})"
    ),
    "a token of Slack": re.compile(rb"\bxox[abeoprs]-[A-Za-z0-9-]{10}|hooks\.slack\.com/services/T\w+/B\w+/\w{16}"),
    "a token of Hugging Face": re.compile(rb"\bhf_[A-Za-z0-9]{30}"),
    "a key of Google": re.compile(rb"\bAIza[\w-]{35}|\bya29\.[\w-]{30}|\bGOCSPX-[\w-]{24}"),
    "an API key": re.compile(
        rb"\b(sk-(proj-|ant-|svcacct-)?[A-Za-z0-9]{20}|[sr]k_live_\w{20}|dapi[0-9a-f]{32}|npm_[A-Za-z0-9]{36}"
        rb"|pypi-AgEI[\w-]{40}|dckr_pat_[\w-]{20}|SG\.[\w-]{22}\.[\w-]{40}|AGE-SECRET-KEY-1[0-9A-Z]{50})"
    ),
    "a key of Azure": re.compile(rb"\b(Account|SharedAccess)Key=[A-Za-z0-9+/]{40}"),
    "a signed token (JWT)": re.compile(rb"\beyJ[\w-]{10,}\.eyJ[\w-]{10,}\.[\w-]{10}"),
    "a signed address": re.compile(rb"[?&](X-(Amz|Goog)-Signature|Signature|sig)=[\w%+/=.-]{6}"),
    "a key or token that is given a value": re.compile(
        rb"(?i)\b\w*(secret_?(access_?)?key|(api|access|auth|private|account)_?(key|token)|client_?secret)"
        rb"[\"']?\s*[:=]\s*[\"']?" + _VALUE + rb"([\"'\s,;]|$)"
    ),
}


def by_name(name: str) -> bool:
    """Whether a path, with slashes, has a part that names credentials."""
    *folders, file = PurePosixPath(name).parts
    if PurePosixPath(file).suffix.lower() in SUFFIXES or any(map(_is_named, folders)):
        return True
    return PurePosixPath(file).suffix.lower() not in SOURCES and _is_named(file)


def _is_named(part: str) -> bool:
    spaced = re.sub(r"(?<=[a-z0-9])(?=[A-Z])", "-", part)  # serviceAccountKey
    return bool(WORDS.search(spaced)) or part.lower().startswith(".env")


def by_content(data: bytes) -> str | None:
    """Which line of a file holds what looks like a key, as in "line 3: a private key"; None if there is none.

    Nothing of the key itself is told.
    """
    found = [(match.start(), what) for what, key in KEYS.items() if (match := key.search(data))]
    if not found:
        return None
    at, what = min(found)
    line = data.count(b"\n", 0, at) + 1
    return f"line {line}: {what}"
