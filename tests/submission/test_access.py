from pathlib import Path

import pytest

from metaray.errors import InputError
from metaray.submission.access import check_transport, cluster_address, is_loopback, read_token


@pytest.mark.parametrize(
    ("flag", "environment", "wanted"),
    [
        ("http://head:8265/", {}, "http://head:8265"),
        ("https://ray.example.com/cluster", {"RAY_ADDRESS": "http://other:1"}, "https://ray.example.com/cluster"),
        (None, {"RAY_ADDRESS": "http://head:8265"}, "http://head:8265"),
        (None, {"RAY_API_SERVER_ADDRESS": "http://a:1", "RAY_ADDRESS": "http://b:2"}, "http://a:1"),
        (None, {"RAY_API_SERVER_ADDRESS": "http://a:1", "RAY_ADDRESS": "head:6379"}, "http://a:1"),
    ],
)
def test_address(flag: str | None, environment: dict[str, str], wanted: str) -> None:
    assert cluster_address(flag, environment) == wanted


@pytest.mark.parametrize(
    ("flag", "environment", "wanted"),
    [
        (None, {}, "--address http://HOST:8265"),
        (None, {"RAY_ADDRESS": "head:6379"}, "--address http://HOST:8265"),
        ("head:8265", {}, "for instance http://head:8265"),
        ("ray://head:10001", {}, "for instance http://head:8265"),
        ("http://head:port", {}, "for instance http://head:8265"),
        ("http://", {}, "for instance http://head:8265"),
        ("http://me:hushhush@head:8265", {}, "holds a credential"),
        ("http://hushhush@head:8265", {}, "holds a credential"),
    ],
)
def test_wrong_address(flag: str | None, environment: dict[str, str], wanted: str) -> None:
    with pytest.raises(InputError) as caught:
        cluster_address(flag, environment)
    assert wanted in str(caught.value) and "hushhush" not in str(caught.value)


@pytest.mark.parametrize(
    ("address", "loopback"),
    [
        ("http://localhost:8265", True),
        ("http://127.0.0.1:8265", True),
        ("http://127.8.9.1:8265", True),
        ("http://[::1]:8265", True),
        ("http://localhost.example.com:8265", False),
        ("http://127.0.0.1.nip.io:8265", False),
        ("http://10.0.0.1:8265", False),
        ("http://0.0.0.0:8265", False),
        ("http://head:8265", False),
    ],
)
def test_plain_http_may_not_leave_this_machine(address: str, loopback: bool) -> None:
    assert is_loopback(address) == loopback
    check_transport(address, insecure=True)
    check_transport(address.replace("http:", "https:"), insecure=False)
    if loopback:
        check_transport(address, insecure=False)
    else:
        with pytest.raises(
            InputError, match=r"plain HTTP to another machine: .*ssh -NL 8265:localhost:8265.*--insecure"
        ):
            check_transport(address, insecure=False)


def token_file(folder: Path, text: str, mode: int = 0o600) -> Path:
    path = folder / "auth_token"
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)
    path.chmod(mode)
    return path


def test_tokens_come_from_where_ray_takes_them(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    assert read_token({}) is None
    token_file(tmp_path / ".ray", "from-home\n")
    named = {"RAY_AUTH_TOKEN_PATH": str(token_file(tmp_path, "from-file"))}
    assert read_token({}) == "from-home"
    assert read_token(named) == "from-file"
    assert read_token(named | {"RAY_AUTH_TOKEN": "from-variable"}) == "from-variable"


@pytest.mark.parametrize("mode", [0o640, 0o604, 0o660, 0o644])
def test_token_files_are_private(mode: int, tmp_path: Path) -> None:
    path = token_file(tmp_path, "hushhush", mode)
    with pytest.raises(InputError) as caught:
        read_token({"RAY_AUTH_TOKEN_PATH": str(path)})
    assert f"(mode {mode:04o}): chmod 600 {path}" in str(caught.value)


@pytest.mark.parametrize("text", ["", "\n", "two words", "line\nbreak", "t\u00f6ken"])
def test_no_token(text: str, tmp_path: Path) -> None:
    path = token_file(tmp_path, text)
    with pytest.raises(InputError, match="holds no token") as caught:
        read_token({"RAY_AUTH_TOKEN_PATH": str(path)})
    assert not text.strip() or text not in str(caught.value)


def test_a_token_file_that_is_not_there(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="no such file"):
        read_token({"RAY_AUTH_TOKEN_PATH": str(tmp_path / "none")})
