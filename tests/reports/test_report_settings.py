import pytest

from metaray.reports.settings import clean, described, hidden_tree, json_of, settings_of


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        (
            "metaray upload mine --tracking-uri https://me:hush@h/x",
            "metaray upload mine --tracking-uri https://me:***@h/x",
        ),
        ("--set model.options.api_key=hush --set a=b", "--set model.options.api_key=*** --set a=b"),
        ("--set 'model.options.apiKey=hush hush' --run x", "--set 'model.options.apiKey=***' --run x"),
        ("train --password hush -x", "train --password *** -x"),
        ("db_password='hush hush'", "db_password=***"),
        ("key AKIA" + 4 * "HUSH" + " here", "key *** here"),
        ("s3://KEY:hush@bucket/a", "s3://KEY:***@bucket/a"),
        ("the token is a word, and max_tokens=128 a number", "the token is a word, and max_tokens=128 a number"),
        ("bell\x07 and\ttab", "bell  and\ttab"),
    ],
)
def test_secrets_and_controls_are_not_shown(text: str, shown: str) -> None:
    assert clean(text) == shown and clean(shown) == shown


def test_fields_that_are_named_after_secrets() -> None:
    tree = {"model": {"kind": "own", "access_token": "hush", "tokens": 7, "path": "s3://K:hush@b"}, "word": "x" * 999}
    assert settings_of(tree) == {
        "model.kind": "own",
        "model.access_token": "***",
        "model.tokens": "7",
        "model.path": "s3://K:***@b",
        "word": f"{'x' * 400}... (999 characters)",
    }
    assert "hush" not in json_of(tree) and '"tokens": 7' in json_of(tree)
    assert hidden_tree([tree])[0]["model"]["access_token"] == "***"
    deep = {"password": "20240101", "api_key": ["hush"], "credentials": {"value": "hush"}, "secret": "", "keys": ["a"]}
    masked = {"password": "***", "api_key": "***", "credentials": "***", "secret": "", "keys": ["a"]}
    assert hidden_tree(deep) == masked and "hush" not in str(settings_of(deep))
    assert clean("--set model.options.password=20240101") == "--set model.options.password=***"


def test_a_part_in_a_line() -> None:
    assert described({"kind": "maml", "inner_lr": 0.1, "left": None}) == "maml (inner_lr 0.1)"
    assert described({"kind": "glyphs"}) == "glyphs" and described({"ways": 5}) == "ways 5" and described(4) == "4"
