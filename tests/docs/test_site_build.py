"""`make docs`: strict, without a network, and whole. Needs .venv-docs, which `make test-slow` makes."""

import os
import re
import subprocess
from pathlib import Path

import pytest

from jobs.site.public_names import public_names
from tests.docs.pages import ROOT
from tests.patience import PATIENT_S

NOWHERE = "http://127.0.0.1:9"
"""Nobody answers there."""


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    python = ROOT / ".venv-docs" / "bin" / "python"
    assert python.is_file(), "make docs makes .venv-docs"
    folder = tmp_path_factory.mktemp("site")
    proxies = dict.fromkeys(("http_proxy", "https_proxy", "HTTP_PROXY", "HTTPS_PROXY"), NOWHERE)
    done = subprocess.run(
        [str(python), "-m", "mkdocs", "build", "--strict", "--site-dir", str(folder)],
        cwd=ROOT,
        env={**os.environ, **proxies, "NO_MKDOCS_2_WARNING": "1"},
        capture_output=True,
        text=True,
        timeout=PATIENT_S,
    )
    assert done.returncode == 0 and "WARNING" not in done.stderr, done.stderr
    return folder


@pytest.mark.slow
def test_every_public_name_has_its_place(site: Path) -> None:
    for room, homes in public_names().items():
        page = (site / "reference" / f"{room}.html").read_text()
        assert not [home for home in homes if f'id="{home}"' not in page]


@pytest.mark.slow
def test_nothing_is_fetched_from_elsewhere(site: Path) -> None:
    files = list(site.rglob("*.html"))
    assert len(files) > 40
    for file in files:
        found = re.findall(
            r"<(?:script|img|link|iframe)\b[^>]*\b(?:src|href)=\"?(https?://[^\s\">]+)", file.read_text()
        )
        assert not found, f"{file.name}: {found}"
