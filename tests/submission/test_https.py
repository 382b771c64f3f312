"""The jobs client over HTTPS: to whom it speaks, and what it says where it does not."""

import ssl
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat

from metaray.errors import InputError
from metaray.submission.client import ClusterAway, connect
from tests.submission.fake_cluster import TOKEN, FakeCluster, fake_cluster


def certificate(folder: Path, host: str) -> Path:
    """A file with a key and a certificate for `host`, signed by itself."""
    key, now = ec.generate_private_key(ec.SECP256R1()), datetime.now(UTC)
    name = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, host)])
    made = (
        x509.CertificateBuilder(name, name, key.public_key(), x509.random_serial_number())
        .not_valid_before(now - timedelta(hours=1))
        .not_valid_after(now + timedelta(hours=1))
        .add_extension(x509.SubjectAlternativeName([x509.DNSName(host)]), critical=False)
        .sign(key, hashes.SHA256())
    )
    path = folder / f"{host}.pem"
    private = key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
    path.write_bytes(private + made.public_bytes(Encoding.PEM))
    return path


@pytest.fixture
def trusted(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    path = certificate(tmp_path, "localhost")
    monkeypatch.setenv("SSL_CERT_FILE", str(path))
    monkeypatch.setenv("RAY_AUTH_TOKEN", TOKEN)
    return path


@pytest.fixture
def cluster(trusted: Path) -> Iterator[FakeCluster]:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(trusted)
    with fake_cluster(context) as cluster:
        yield cluster


def test_a_trusted_certificate(cluster: FakeCluster) -> None:
    cluster.add("metaray-r", "RUNNING", run="r")
    (job,) = connect(cluster.address, insecure=False, runs_code=True).jobs()
    assert job.run == "r"


@pytest.mark.parametrize("host", [None, "elsewhere.example.com"])
def test_another_certificate(
    cluster: FakeCluster, host: str | None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    if host is None:
        monkeypatch.delenv("SSL_CERT_FILE")
    else:
        monkeypatch.setenv("SSL_CERT_FILE", str(certificate(tmp_path, host)))
    with pytest.raises(
        InputError, match="certificate of https://localhost:.* is not trusted here .*SSL_CERT_FILE"
    ) as e:
        connect(cluster.address, insecure=True, runs_code=True)
    assert not isinstance(e.value, ClusterAway) and cluster.authorizations == []  # never sent a token


def test_a_cluster_that_speaks_plain_http(trusted: Path) -> None:
    with fake_cluster() as cluster, pytest.raises(ClusterAway, match="Is it http://"):
        connect(cluster.address.replace("http:", "https:"), insecure=False, runs_code=True)
    assert cluster.authorizations == []
