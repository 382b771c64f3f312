import random
import string
from pathlib import Path

import pytest

from metaray.submission.credentials import by_content, by_name

REPOSITORY = Path(__file__).parents[2]


def noise(count: int, alphabet: str = string.ascii_letters + string.digits) -> str:
    """So made, because this file could not be submitted if it held what looks like keys."""
    return "1" + "".join(random.Random(0).choices(alphabet, k=count - 2)) + "a"


CAPITALS = string.ascii_uppercase + string.digits
KEYS = {
    "a private key": ["-----BEGIN {}PRIVATE KEY-----".format("OPENSSH "), "-----BEGIN {} KEY-----".format("PRIVATE")],
    "an access key of AWS": ["AKIA" + noise(16, CAPITALS).upper(), "x='ASIA" + noise(16, CAPITALS).upper()],
    "a token of GitHub or GitLab": ["ghp_" + noise(36), "github_pat_" + noise(60), "glpat-" + noise(20)],
    "a token of Slack": ["xoxb-" + noise(24)],
    "a token of Hugging Face": ["token = hf_" + noise(34)],
    "a key of Google": ["AIza" + noise(35)],
    "an API key": ["sk-" + noise(48), "sk-ant-" + noise(40), "sk_live_" + noise(24), "npm_" + noise(36)],
    "a key of Azure": ["AccountKey=" + noise(86) + "=="],
    "a signed token (JWT)": [f"eyJ{noise(20)}.eyJ{noise(40)}.{noise(30)}"],
    "a key or token that is given a value": [
        f"aws_secret_access_key = {noise(40)}",
        f'"api_key": "{noise(32)}"',
        f"export WANDB_API_KEY={noise(40)}",
        f"client_secret: '{noise(24)}'",
    ],
}


@pytest.mark.parametrize(("what", "text"), [(what, text) for what, texts in KEYS.items() for text in texts])
def test_keys_are_found_by_line_and_not_told(what: str, text: str) -> None:
    assert by_content(f"first\nsecond\n{text}\n".encode()) == f"line 3: {what}"


@pytest.mark.parametrize(
    "text",
    [
        "",
        "token = os.environ['RAY_AUTH_TOKEN']",
        "api_key = get_the_key_from_somewhere(name)",
        "-----BEGIN CERTIFICATE-----",
        "sk-learn and task-0123456789",
        "eyJ is how a JWT begins",
        'token: str = "0123456789abcdef"',
    ],
)
def test_what_is_no_key(text: str) -> None:
    assert by_content(text.encode()) is None


def test_this_project_itself_can_be_submitted() -> None:
    folders = ("platform", "tests", "jobs", "docs", "cluster")
    paths = [path for folder in folders for path in (REPOSITORY / folder).rglob("*") if path.is_file()]
    found = {str(path): what for path in paths if ".pyc" not in path.name and (what := by_content(path.read_bytes()))}
    assert found == {}


@pytest.mark.parametrize("name", ["a/b.py", "jobs/keys.py", "data/tokenizer.json", "monkey.txt", "public/x.crt"])
def test_names_that_are_harmless(name: str) -> None:
    assert not by_name(name)
