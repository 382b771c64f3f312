"""URIs as values with parts: what they name, apart from the secrets that stand in them.

Secrets are read as people write them, not only as RFC 3986 allows: passwords hold slashes, question marks and at-signs.
Where it is not certain how far one goes, more is hidden rather than less.
"""

import re
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import final
from urllib.parse import unquote_plus

HIDDEN = "***"
PREFIX = re.compile(r"[A-Za-z][A-Za-z0-9+.-]*://")
WEB = frozenset({"ftp", "ftps", "http", "https", "ws", "wss"})
"""Schemes whose paths may hold at-signs, and whose lone user is a token."""
WORDS = frozenset(
    {
        *("credential", "credentials", "jwt", "passphrase", "passwd", "password", "passwords", "pwd", "secret", "sig"),
        *("signature", "token", "tokens"),
    }
)
"""Words that mark a query parameter as a secret if its name contains one of them."""
ENDS = ("accesskey", "accesskeyid", "apikey", "passwd", "password", "privatekey", "secret", "secretkey", "signature")
WHOLE = frozenset({"accesstoken", "auth", "authorization", "authtoken", "code", "hmac", "key", "pass", "policy"})
SIGNING = frozenset(
    {
        *("algorithm", "expires", "googleaccessid", "key-pair-id", "saoid", "scid", "sd", "sdd", "se", "si", "sip"),
        *("ske", "skoid", "sks", "skt", "sktid", "skv", "sp", "spr", "sr", "srt", "ss", "st", "suoid", "sv"),
    }
)
"""Parameters of Amazon, Google and Azure that come and go with a signature, and name nothing; so do x-amz-, x-goog-."""


@final
@dataclass(frozen=True)
class Uri:
    """The parts of a URI; joined again they give the original text.

    Attributes:
        prefix: Scheme and slashes as written; empty for a plain path.
        account: User and password before the at-sign; None without them.
        place: Host and path.
        query: Text after the question mark; None without one.
        fragment: Text after the hash sign; None without one.
    """

    prefix: str
    account: str | None
    place: str
    query: str | None = None
    fragment: str | None = None

    @classmethod
    def parse(cls, text: str) -> "Uri":
        """Split a text into the parts of a URI."""
        prefix = PREFIX.match(text)
        if prefix is None:
            return cls("", None, text)
        rest = text[prefix.end() :]
        end = _end_of_account(prefix[0][:-3].lower() in WEB, rest)
        account, rest = (None, rest) if end is None else (rest[:end], rest[end + 1 :])
        rest, hash_, fragment = rest.partition("#")
        place, mark, query = rest.partition("?")
        return cls(prefix[0], account, place, query if mark else None, fragment if hash_ else None)

    @property
    def scheme(self) -> str:
        """The scheme in small letters, without slashes; empty for a plain path."""
        return self.prefix[:-3].lower()

    @property
    def has_password(self) -> bool:
        """Whether a password, or a token in its place, stands before the host."""
        return self.account != self._shown_account()

    @property
    def has_secret(self) -> bool:
        """Whether any part contains a secret."""
        return self.has_password or any(_masked(part) != part for part in (self.query, self.fragment) if part)

    @property
    def shown(self) -> str:
        """The URI for messages and records: secrets replaced by asterisks, and a fragment, where links hold tokens."""
        query = None if self.query is None else _masked(self.query)
        fragment = HIDDEN if self.fragment else self.fragment
        return replace(self, account=self._shown_account(), query=query, fragment=fragment).text

    @property
    def identity(self) -> str:
        """The URI without account, secrets, signature and fragment: what it names, whoever asks.

        Addresses of one object that were signed at different times have the same identity.
        """
        query = self.query
        if query is not None and _masked(query) != query:
            query = "&".join(option for option in re.split("[&;]", query) if not _is_of_signature(option)) or None
        return replace(self, account=None, query=query, fragment=None).text

    @property
    def text(self) -> str:
        """The URI as text, secrets included."""
        account = "" if self.account is None else f"{self.account}@"
        query = "" if self.query is None else f"?{self.query}"
        fragment = "" if self.fragment is None else f"#{self.fragment}"
        return f"{self.prefix}{account}{self.place}{query}{fragment}"

    def _shown_account(self) -> str | None:
        if not self.account or self.account == HIDDEN:
            return self.account
        user, colon, password = self.account.partition(":")
        if colon:
            return f"{user}:{HIDDEN}" if password else self.account
        return HIDDEN if self.scheme in WEB or ":" in unquote_plus(user) else user


def redacted(text: str) -> str:
    """The text, with secrets in its URIs replaced."""
    pieces, at = [], 0
    while found := PREFIX.search(text, at):
        end = _end_of_uri(text, found)
        pieces += [text[at : found.start()], Uri.parse(text[found.start() : end]).shown]
        at = end
    return "".join([*pieces, text[at:]])


def has_secret(text: str) -> bool:
    """Whether a URI in `text` holds a secret; fragments that may be harmless do not count."""
    at = 0
    while found := PREFIX.search(text, at):
        at = _end_of_uri(text, found)
        if Uri.parse(text[found.start() : at]).has_secret:
            return True
    return False


def names_secret(name: str) -> bool:
    """Whether a field or an option of that name holds a secret, as `api_key` and `dbPassword` do."""
    return _is_secret(f"{name}=x")


def place_of_secret(tree: object, at: str = "") -> str | None:
    """Key of the first URI with a secret in a tree of JSON types, as "model.options.url"; None without one."""
    if isinstance(tree, str):
        return at if has_secret(tree) else None
    items = tree.items() if isinstance(tree, Mapping) else enumerate(tree) if isinstance(tree, list) else ()
    found = (place_of_secret(value, f"{at}.{key}" if at else str(key)) for key, value in items)
    return next((place for place in found if place is not None), None)


def _end_of_uri(text: str, prefix: re.Match[str]) -> int:
    """Where a URI in a text ends: at a space or quote, or where another begins; unless its password holds that."""

    def before(pattern: str) -> int:
        found = re.compile(pattern).search(text, prefix.end())
        return found.start() if found else len(text)

    end, furthest = before(rf"\s|[\"'`<>]+([\s,;:.)\]}}]|$)|(?<=[^:/][/?&=#,;(]){PREFIX.pattern}"), before(r"\s")
    rest, web = text[prefix.end() : end], prefix[0][:-3].lower() in WEB
    is_open = re.fullmatch(r"[^/?#@:]*:(?!\d+$)[^@]*", rest)  # a user, and a password that goes on
    if is_open and _end_of_account(web, text[prefix.end() : furthest]) is not None:
        return furthest
    return end


def _end_of_account(web: bool, rest: str) -> int | None:
    """Where the at-sign is that ends user and password, in what follows the slashes; None if there is none."""
    authority = re.match("[^/?#]*", rest)
    assert authority is not None
    user, colon, after = re.sub(r"^\[[^\]]*\]", "", authority[0]).partition(":")
    if "@" in authority[0] and not (colon and "@" not in user):
        return authority[0].rindex("@")  # a user alone
    if not colon:
        return None
    path = re.match("[^?#]*" if web else "[^?]*", rest)
    assert path is not None
    is_port = re.fullmatch(r"\d{1,5}", after) and "@" not in authority[0]
    if "@" in path[0]:
        return None if is_port and web else path[0].rindex("@")
    return None if is_port or "@" not in rest else rest.rindex("@")


def _masked(query: str) -> str:
    """A query with the values of its secrets replaced."""
    return "".join(
        f"{part.partition('=')[0]}={HIDDEN}" if _is_secret(part) else part for part in re.split("([&;])", query)
    )


def _is_secret(option: str) -> bool:
    name, equals, value = option.partition("=")
    if not equals or not value or value == HIDDEN:
        return False
    words = re.split(r"[^a-z0-9]+", re.sub(r"(?<=[a-z0-9])(?=[A-Z])", "-", unquote_plus(name)).lower())
    named = bool(WORDS.intersection(words)) or "".join(words) in WHOLE or "".join(words).endswith(ENDS)
    return named or has_secret(unquote_plus(value))  # the latter for an address within an address


def _is_of_signature(option: str) -> bool:
    name = unquote_plus(option.partition("=")[0]).lower()
    return _is_secret(option) or name in SIGNING or name.startswith(("x-amz-", "x-goog-"))
