import http.client
import io
import socket
import threading
import urllib.request
from collections.abc import Callable, Iterator
from typing import cast

import pytest

from metaray.data import servers
from metaray.data.servers import HttpObject, RemoteObject, S3Object, shown
from metaray.errors import InputError
from tests.data.small_server import SmallServer, small_server, without_proxies

CONTENT = bytes(range(256)) * 40


Place = Callable[[SmallServer], RemoteObject]


@pytest.fixture
def server(monkeypatch: pytest.MonkeyPatch) -> Iterator[SmallServer]:
    with small_server() as served:
        without_proxies(monkeypatch, served)
        served.objects["/bucket/store"] = CONTENT
        yield served


def over_http(server: SmallServer) -> RemoteObject:
    return HttpObject(f"{server.address}/bucket/store")


def over_s3(server: SmallServer) -> RemoteObject:
    return S3Object("s3://bucket/store")


def by_option(server: SmallServer) -> RemoteObject:
    host = server.address.removeprefix("http://")
    return S3Object(f"s3://bucket/store?endpoint_override={host}&scheme=http")


def fetched(remote: RemoteObject) -> bytes:
    target = io.BytesIO()
    remote.download(target, remote.look().size_bytes)
    return target.getvalue()


@pytest.mark.parametrize("place", [over_http, over_s3, by_option])
def test_it_is_fetched_and_a_change_is_seen(server: SmallServer, place: Place, monkeypatch: pytest.MonkeyPatch) -> None:
    if place is by_option:
        monkeypatch.delenv("AWS_ENDPOINT_URL")
    before = place(server).look()
    assert before.size_bytes == len(CONTENT) and before == place(server).look()
    assert fetched(place(server)) == CONTENT
    server.objects["/bucket/store"] = CONTENT[::-1]
    after = place(server).look()
    assert after.size_bytes == before.size_bytes and after.version != before.version


def test_blocks_are_put_together(server: SmallServer, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("metaray.data.servers.BLOCK_BYTES", 1000)
    assert fetched(over_http(server)) == CONTENT and fetched(over_s3(server)) == CONTENT
    gets = server.count("GET")
    assert gets == 1 + 11, gets  # that is why blocks are large


def test_a_look_fetches_nothing(server: SmallServer) -> None:
    over_http(server).look()
    over_s3(server).look()
    assert server.count("GET") == 0


def test_a_download_that_is_cut_off(server: SmallServer) -> None:
    server.cut = 1234
    with pytest.raises(InputError, match=f"store: cut off: expected {len(CONTENT)} bytes, got 1234; try again"):
        fetched(over_http(server))


def test_an_object_that_grew_meanwhile(server: SmallServer) -> None:
    with pytest.raises(InputError, match=f"replaced meanwhile: expected 5 bytes, got {len(CONTENT)}"):
        over_http(server).download(io.BytesIO(), 5)


def test_a_full_disk_is_no_network_error(server: SmallServer) -> None:
    class Full(io.BytesIO):
        def write(self, _: object, /) -> int:
            raise OSError(28, "No space left on device")

    with pytest.raises(OSError, match="No space left"):
        over_http(server).download(Full(), len(CONTENT))


@pytest.mark.parametrize("place", [over_http, over_s3])
def test_a_missing_object(server: SmallServer, place: Place) -> None:
    server.objects.clear()
    with pytest.raises(InputError, match="bucket/store: no such object"):
        place(server).look()


@pytest.mark.parametrize(
    ("place", "advice"),
    [
        (over_http, "USER:PASSWORD@HOST"),
        (over_s3, "set AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY .*AWS_ENDPOINT_URL"),
    ],
)
@pytest.mark.parametrize("status", [401, 403])
def test_refused_credentials(server: SmallServer, place: Place, advice: str, status: int) -> None:
    server.statuses = {(method, "/bucket/store"): status for method in ("HEAD", "GET")}
    with pytest.raises(InputError, match=f"bucket/store: access refused .*{advice}") as caught:
        place(server).look()
    assert "hushhush" not in str(caught.value)


def test_another_status_is_told(server: SmallServer) -> None:
    server.statuses = {("HEAD", "/bucket/store"): 500}
    with pytest.raises(InputError, match="can't be fetched: HTTP Error 500"):
        over_http(server).look()


def test_an_address_that_is_signed_for_get_only(server: SmallServer) -> None:
    server.statuses = {("HEAD", "/bucket/store"): 403}
    assert fetched(over_http(server)) == CONTENT


def test_a_server_that_does_not_tell_the_size(server: SmallServer) -> None:
    server.silent = True
    with pytest.raises(InputError, match="doesn't say how large it is"):
        over_http(server).look()


def test_an_account_is_sent_to_its_own_host_only(server: SmallServer) -> None:
    server.moved["/first"] = f"{server.address}/bucket/store"
    HttpObject(f"{server.address.replace('//', '//me:se%3Acret@')}/first").look()
    assert server.accounts == ["Basic bWU6c2U6Y3JldA==", None]


def test_a_strange_path_is_quoted(server: SmallServer) -> None:
    server.objects["/a%20b/%C3%A9%41"] = CONTENT
    assert fetched(HttpObject(f"{server.address}/a b/é%41")) == CONTENT


def test_no_such_host(monkeypatch: pytest.MonkeyPatch) -> None:
    def resolve(*_: object, **__: object) -> None:
        raise socket.gaierror(socket.EAI_NONAME, "Name or service not known")

    monkeypatch.setattr(socket, "getaddrinfo", resolve)
    with pytest.raises(InputError, match=r"//me:\*\*\*@nowhere.example/x: no such host 'nowhere.example'") as caught:
        HttpObject("http://me:secret@nowhere.example/x").look()
    assert "secret" not in str(caught.value)


def test_nobody_listens() -> None:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))  # and does not listen
        with pytest.raises(InputError, match="can't be fetched: .*refused"):
            HttpObject(f"http://127.0.0.1:{free.getsockname()[1]}/x").look()


def test_a_bad_uri_names_no_secret() -> None:
    with pytest.raises(InputError, match="can't be fetched: .*colour") as caught:
        S3Object("s3://me:se/cret@bucket/store?colour=red").look()
    assert "cret@" not in str(caught.value)
    with pytest.raises(InputError, match="can't be fetched: nonnumeric port"):
        HttpObject("http://127.0.0.1:seven/x").look()


@pytest.mark.parametrize(
    ("uri", "safe"),
    [
        ("data/store.arrow", "data/store.arrow"),
        ("s3://key:se/cret@bucket/a?region=x", "s3://key:***@bucket/a?region=x"),
        ("https://token@host/a", "https://***@host/a"),
        ("HTTPS://me:pass@host/a?X-Amz-Signature=abc&b=c", "HTTPS://me:***@host/a?..."),
    ],
)
def test_what_messages_show(uri: str, safe: str) -> None:
    assert shown(uri) == safe


def test_redirections_are_said_and_few_and_stay_within_http(
    server: SmallServer, caplog: pytest.LogCaptureFixture
) -> None:
    server.moved |= {"/first": f"{server.address}/second?X-Amz-{'Signature'}=hushhush", "/second": "/bucket/store"}
    assert fetched(HttpObject(f"{server.address}/first")) == CONTENT
    assert [record.getMessage() for record in caplog.records] == [
        f"{server.address}/first redirects to {server.address}/second?...",
        f"{server.address}/first redirects to {server.address}/bucket/store",
    ]
    for number in range(9):
        server.moved[f"/{number}"] = f"{server.address}/{number + 1}"
    with pytest.raises(InputError, match="infinite loop"):
        HttpObject(f"{server.address}/0").look()
    for elsewhere in ("file:///etc/passwd", "ftp://host/x", "gopher://host"):
        server.moved["/0"] = elsewhere
        with pytest.raises(InputError, match=f"[Rr]edirect.* {elsewhere}|[Rr]edirect.*'{elsewhere}'.* is not allowed"):
            HttpObject(f"{server.address}/0").look()


def test_from_https_nothing_less_is_redirected_to() -> None:
    request = urllib.request.Request("https://host/a")
    with pytest.raises(http.client.HTTPException, match="it redirects to http://host/a, which is not https"):
        servers._Redirections("a", set()).redirect_request(request, io.BytesIO(), 302, "", {}, "http://host/a")


def test_a_body_that_comes_byte_by_byte_is_given_up(monkeypatch: pytest.MonkeyPatch) -> None:
    now = [0.0]
    monkeypatch.setattr("metaray.data.servers.time.monotonic", lambda: now[0])

    class Drip:
        def read1(self, size: int) -> bytes:
            now[0] += 1.0
            return b"x"

    with pytest.raises(TimeoutError, match="no whole answer within 300 s"):
        servers._Patient(cast(http.client.HTTPResponse, Drip())).read(servers.BLOCK_BYTES)
    assert 300 < now[0] < 310
    assert servers._Patient(cast(http.client.HTTPResponse, Drip())).read(5) == b"xxxxx"


def test_a_server_that_sends_a_byte_now_and_then_is_given_up(
    server: SmallServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    held = threading.Event()
    server.before_body = server.within_body = held.wait
    monkeypatch.setattr(servers, "BLOCK_WITHIN_S", 0.05)
    monkeypatch.setattr(servers, "TIMEOUT_S", 1.0)
    try:
        with pytest.raises(InputError, match=r"cut off: .* got 0 \(no whole answer within 0.05 s\); try again"):
            fetched(HttpObject(f"{server.address}/bucket/store"))
        monkeypatch.setattr(servers, "ANSWER_WITHIN_S", 0.05)
        monkeypatch.setattr(HttpObject, "_look", lambda _: held.wait())
        with pytest.raises(InputError, match="can't be fetched: no whole answer within 0.05 s"):
            HttpObject(f"{server.address}/bucket/store").look()
    finally:
        held.set()
