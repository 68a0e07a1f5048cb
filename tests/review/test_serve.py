"""The page is served to this machine alone, to those who know its token, and nothing else is."""

from __future__ import annotations

import http.client
import threading
from collections.abc import Iterator
from pathlib import Path
from urllib.error import HTTPError
from urllib.parse import urlsplit
from urllib.request import Request, urlopen

import pytest

from medseg.errors import MedsegError
from medseg.review.serve import ReviewServer

POLICY = "default-src 'none'"


@pytest.fixture
def server(tmp_path: Path) -> Iterator[ReviewServer]:
    (tmp_path / "page.html").write_bytes(b"<p>page</p>")
    (tmp_path / "image.nii.gz").write_bytes(bytes(range(256)) * 1000)
    (tmp_path / "secret.txt").write_text("secret", encoding="utf-8")
    blobs = {"case0-image": tmp_path / "image.nii.gz", "gone": tmp_path / "gone.nii.gz"}
    with ReviewServer(tmp_path / "page.html", blobs, policy=POLICY) as server:
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        yield server
        server.shutdown()
        thread.join()


def ask(server: ReviewServer, path: str, method: str = "GET", **headers: str) -> tuple[int, bytes, dict[str, str]]:
    """Status, body and headers; the path goes out as it is."""
    connection = http.client.HTTPConnection("127.0.0.1", server.server_port, timeout=5)
    connection.putrequest(method, path, skip_host="Host" in headers)
    for name, value in headers.items():
        connection.putheader(name.replace("_", "-"), value)
    connection.endheaders()
    answer = connection.getresponse()
    found = answer.status, answer.read(), dict(answer.getheaders())
    connection.close()
    return found


def test_the_page_and_its_blobs_come_as_they_are(server, tmp_path):
    with urlopen(server.url) as answer:
        assert (answer.status, answer.read()) == (200, b"<p>page</p>")
        assert answer.headers["Content-Type"] == "text/html; charset=utf-8"
        assert answer.headers["Content-Security-Policy"].startswith(POLICY)
        assert answer.headers["Cache-Control"] == "no-store" and answer.headers["Referrer-Policy"] == "no-referrer"
        assert "Access-Control-Allow-Origin" not in answer.headers
        assert "Python" not in answer.headers["Server"]
    with urlopen(server.url + "blob/case0-image") as answer:
        assert answer.read() == (tmp_path / "image.nii.gz").read_bytes()
    status, body, headers = ask(server, f"/{server.token}/blob/case0-image", "HEAD")
    assert (status, body, headers["Content-Length"]) == (200, b"", "256000")
    assert ask(server, f"/{server.token}/", Origin=server.url.split("/" + server.token)[0])[0] == 200
    assert ask(server, f"/{server.token}/", Sec_Fetch_Site="same-origin")[0] == 200
    assert ask(server, f"/{server.token}/", Host=f"localhost:{server.server_port}")[0] == 200


def test_it_listens_to_this_machine_and_the_token_is_new_each_time(server, tmp_path):
    assert server.server_address[0] == "127.0.0.1"
    assert urlsplit(server.url).path == f"/{server.token}/" and len(server.token) >= 43
    with ReviewServer(tmp_path / "page.html", {}, policy=POLICY) as other:
        assert other.token != server.token


@pytest.mark.parametrize("path", ["/", "/wrong/", "/TOKE/", "/TOKENx/", "/favicon.ico", "/blob/case0-image"])
def test_without_the_token_nothing_is_told(server, path):
    path = path.replace("TOKEN", server.token).replace("TOKE", server.token[:-1])
    assert ask(server, path)[:2] == (403, b"")
    with pytest.raises(HTTPError, match="403"):
        urlopen(f"http://127.0.0.1:{server.server_port}/")


@pytest.mark.parametrize(
    "name",
    [
        "secret.txt",
        "page.html",
        "blob/",
        "blob",
        "blob/secret.txt",
        "blob/../secret.txt",
        "../secret.txt",
        "blob/%2e%2e/secret.txt",
        "blob/..%2fsecret.txt",
        "blob/%252e%252e/secret.txt",
        "blob/..\\secret.txt",
        "blob//etc/passwd",
        "/etc/passwd",
        "blob/case0-image/",
        "blob/case0-image%00",
        "?",
        "blob/CASE0-IMAGE",
    ],
)
def test_nothing_but_the_list_can_be_reached(server, name):
    status, body, _ = ask(server, f"/{server.token}/{name}")
    assert (status, body) == (404, b"")


def test_a_blob_that_has_gone_is_said_to_have_gone(server):
    assert ask(server, f"/{server.token}/blob/gone")[:2] == (410, b"")


@pytest.mark.parametrize(
    "headers",
    [
        {"Origin": "https://evil.example"},
        {"Origin": "null"},
        {"Origin": "http://127.0.0.1:1"},
        {"Sec_Fetch_Site": "cross-site"},
        {"Sec_Fetch_Site": "same-site"},
        {"Host": "evil.example"},
        {"Host": "127.0.0.1"},
        {"Host": "127.0.0.1:1"},
        {"Host": ""},
    ],
)
def test_other_sites_and_other_names_of_this_machine_are_refused(server, headers):
    for name in ("", "blob/case0-image"):
        status, body, answered = ask(server, f"/{server.token}/{name}", **headers)
        assert (status, body) == (403, b"")
        assert not [name for name in answered if name.lower().startswith("access-control")]


@pytest.mark.parametrize("method", ["POST", "PUT", "DELETE", "PATCH", "OPTIONS"])
def test_nothing_can_be_sent_to_it(server, method):
    with pytest.raises(HTTPError, match="405"):
        urlopen(Request(server.url, method=method))


def test_a_port_that_is_taken_is_one_line(server, tmp_path):
    with pytest.raises(MedsegError, match="--port must be a free port"):
        ReviewServer(tmp_path / "page.html", {}, policy=POLICY, port=server.server_port)


def test_the_verb_serves_until_ctrl_c(vessel_results, monkeypatch, capsys):
    from medseg.workflows.reviewing import review_results

    asked: dict[str, bytes] = {}
    serve_forever = ReviewServer.serve_forever

    def interrupted(server: ReviewServer) -> None:
        thread = threading.Thread(target=serve_forever, args=(server, 0.01))
        thread.start()
        asked["page"] = urlopen(server.url).read()
        asked["mask"] = urlopen(f"{server.url}blob/case0-mask").read()
        server.shutdown()
        thread.join()
        raise KeyboardInterrupt

    monkeypatch.setattr(ReviewServer, "serve_forever", interrupted)
    before = {path.name for path in vessel_results.out.iterdir()}
    answer = review_results(vessel_results.out, serve=True)
    assert answer["failed"] == {} and len(answer["queue"]) == 3
    out = capsys.readouterr().out
    assert out.count("http://127.0.0.1:") == 1
    assert b'"served": true' in asked["page"] and b"application/octet-stream" not in asked["page"].split(b"<script>")[0]
    assert asked["mask"] in {path.read_bytes() for path in vessel_results.out.glob("*_seg.nii.gz")}
    assert {path.name for path in vessel_results.out.iterdir()} == before
