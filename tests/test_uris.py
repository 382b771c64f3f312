"""URIs, and the secrets in them, however people write them."""

import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from metaray.uris import Uri, has_secret, place_of_secret, redacted

SECRETS = {
    "postgresql://u:hu/sh@host/db": "postgresql://u:***@host/db",
    "postgresql://u:12/34@host/db": "postgresql://u:***@host/db",
    "postgresql://u:hu?sh@host/db": "postgresql://u:***@host/db",
    "postgresql://u:hu#sh@host/db": "postgresql://u:***@host/db",
    "mysql+pymysql://u:hu@s/h@host:3306/db": "mysql+pymysql://u:***@host:3306/db",
    "mysql://u:hu:sh@host": "mysql://u:***@host",
    "redis://:hush@host": "redis://:***@host",
    "https://user:hu/sh@host/x.git": "https://user:***@host/x.git",
    "https://hush@host:5000": "https://***@host:5000",
    "https://u%3Ahush@host": "https://***@host",
    "postgresql://u%3Ahush@host/db": "postgresql://***@host/db",
    "http://u:hush@[::1]:5000/a": "http://u:***@[::1]:5000/a",
    "s3://KEY:HU/SH@bucket/runs?region=eu": "s3://KEY:***@bucket/runs?region=eu",
    "S3://KEY:HU/SH@bucket": "S3://KEY:***@bucket",
    "s3://bucket/runs?access_key=hush&secret_key=hush&region=x": "s3://bucket/runs?access_key=***&secret_key=***&region=x",
    "https://h/x?X-Amz-Date=1&X-Amz-Signature=hush": "https://h/x?X-Amz-Date=1&X-Amz-Signature=***",
    "https://h/x?X-Amz-Credential=hush&X-Amz-Security-Token=hush": (
        "https://h/x?X-Amz-Credential=***&X-Amz-Security-Token=***"
    ),
    "https://h/x?AWSAccessKeyId=hush&Signature=hush&Expires=1": "https://h/x?AWSAccessKeyId=***&Signature=***&Expires=1",
    "https://h/x?sv=2&se=2030&sig=hush": "https://h/x?sv=2&se=2030&sig=***",
    "https://h/x?a=b;accessToken=hush": "https://h/x?a=b;accessToken=***",
    "https://h/x?key=hush&monkey=1&sslkey=/a": "https://h/x?key=***&monkey=1&sslkey=/a",
    "postgresql://db/x?user=me&p%61ssword=hush": "postgresql://db/x?user=me&p%61ssword=***",
    "https://h/x#access_token=hush": "https://h/x#***",
    "https://h/get?url=https%3A%2F%2Fu%3Ahush%40host": "https://h/get?url=***",
    "http://proxy/https://u:hush@host": "http://proxy/https://u:***@host",
    "x://a:hu'sh@host": "x://a:***@host",
}
PLAIN = (
    *("", "runs", "/a@b:c", "git@host:me/x.git", "http://host:5000/a@b", "http://[::1]:5000/a@b", "https://h/x?to=a@b"),
    *("postgresql://host:5432/db?options=a@b", "postgresql://me@host/db", "s3://bucket/a@b?region=eu-west-1"),
    *("sqlite:////a/b.db", "file:///a/b", "https://h/x?version=3&tokenizer=bpe", '{"a":"http://h:5000","m":"a@b"}'),
)


@pytest.mark.parametrize(("text", "shown"), SECRETS.items())
def test_a_secret_is_seen_and_not_shown(text: str, shown: str) -> None:
    assert redacted(text) == redacted(redacted(text)) == shown
    assert has_secret(text) and not has_secret(shown)
    for around in (f"at '{text}': no", f"--option={text}", f'{{"a": "{text}", "b": 1}}', f"<{text}> and {text}"):
        assert "hu" not in redacted(around).lower() and "sh@" not in redacted(around)


@pytest.mark.parametrize("text", PLAIN)
def test_what_holds_no_secret_is_left_alone(text: str) -> None:
    assert redacted(text) == text and not has_secret(text)
    assert Uri.parse(text).text == text


@given(
    st.text(alphabet="ab:/@?#&=;[]%1 '\"tokensig", max_size=40), st.sampled_from(["", "s3://", "https://", "x+y://"])
)
def test_parts_make_up_the_text_and_what_is_hidden_stays_hidden(rest: str, prefix: str) -> None:
    assert Uri.parse(prefix + rest).text == prefix + rest
    assert redacted(redacted(prefix + rest)) == redacted(prefix + rest)


PASSWORDS = st.text(min_size=1, alphabet="xyz019/?#.-_+~!$&'()*,;=\"", max_size=20)


@given(
    PASSWORDS.filter(lambda text: not re.match(r"\d+([/#].*)?[?\"']", text)),
    st.sampled_from(["postgresql", "s3", "redis"]),
)
def test_no_password_of_a_database_or_bucket_is_shown(secret: str, scheme: str) -> None:
    """Whatever it holds; but what begins as a port, with options or the end of a quotation behind it, is one."""
    shown = redacted(f"{scheme}://user:{secret}@host.example/db")
    assert shown == f"{scheme}://user:***@host.example/db"


@pytest.mark.parametrize(
    ("uri", "identity"),
    [
        ("https://h/a?X-Amz-Algorithm=A&X-Amz-Date=1&X-Amz-Expires=9&X-Amz-Signature=hush", "https://h/a"),
        ("https://h/a?versionId=3&X-Amz-Date=2&X-Amz-Signature=other", "https://h/a?versionId=3"),
        ("https://h/a?sv=2&sr=b&se=2030&sig=hush", "https://h/a"),
        ("https://h/a?Expires=1&Signature=hush&Key-Pair-Id=K&id=7", "https://h/a?id=7"),
        ("https://u:p@h/a?st=x&id=7#part", "https://h/a?st=x&id=7"),
        ("https://h/a?X-Amz-Date=1", "https://h/a?X-Amz-Date=1"),  # nothing is signed
        ("/a/b#c?d=e", "/a/b#c?d=e"),
    ],
)
def test_an_address_that_is_signed_anew_names_the_same(uri: str, identity: str) -> None:
    assert Uri.parse(uri).identity == identity == Uri.parse(identity).identity


def test_where_a_secret_stands() -> None:
    tree = {"a": 1, "b": {"c": ["x", "see https://h/x?token=hush"]}}
    assert place_of_secret(tree) == "b.c.1"
    assert place_of_secret({"a": [None, "https://h", 2.5]}) is None
