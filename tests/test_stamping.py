"""Time stamps, by an authority that is made here with openssl."""

import http.server
import shutil
import threading
from datetime import UTC, datetime, timedelta

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from authorities import Authority
from heirmark.errors import BadArtifact, BadConfig
from heirmark.keys.stamping import fetch_stamp, request_of, stamped_at

pytest.importorskip("rfc3161_client")
pytestmark = pytest.mark.skipif(shutil.which("openssl") is None, reason="openssl makes the authority")
MESSAGE = b"registered"


@pytest.fixture(scope="module")
def authority(tmp_path_factory):
    return Authority(tmp_path_factory.mktemp("authority") / "a", "Good")


@pytest.fixture(scope="module")
def stamp(authority):
    return authority.stamp(request_of(MESSAGE))


def test_a_stamp_says_when_to_who_trusts_its_root(authority, stamp):
    moment = stamped_at(stamp, MESSAGE, roots=authority.roots)
    assert abs(moment - datetime.now(UTC)) < timedelta(minutes=10)


def test_a_stamp_of_another_message_or_by_a_stranger_says_nothing(authority, stamp, tmp_path):
    with pytest.raises(BadArtifact, match="does not hold"):
        stamped_at(stamp, b"another", roots=authority.roots)
    with pytest.raises(BadArtifact, match="does not hold"):
        stamped_at(stamp, MESSAGE, roots=Authority(tmp_path / "b", "Bad").roots)
    for roots in (b"", b"nonsense", b"-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n"):
        with pytest.raises(BadConfig, match="no certificates"):
            stamped_at(stamp, MESSAGE, roots=roots)


@settings(deadline=None)
@given(st.data())
def test_a_stamp_that_was_changed_says_nothing_else(authority, stamp, data):
    changed = bytearray(stamp)
    changed[data.draw(st.integers(0, len(stamp) - 1))] ^= data.draw(st.integers(1, 255))
    cut = bytes(changed[: data.draw(st.sampled_from([len(stamp), len(stamp) // 2, 3, 0]))])
    try:
        moment = stamped_at(cut, MESSAGE, roots=authority.roots)
    except BadArtifact:
        return
    assert moment == stamped_at(stamp, MESSAGE, roots=authority.roots)  # bytes that nothing signs


def test_a_stamp_is_fetched(authority):
    class Handler(http.server.BaseHTTPRequestHandler):
        def do_POST(self):
            body = self.rfile.read(int(self.headers["Content-Length"]))
            good = self.path == "/" and self.headers["Content-Type"] == "application/timestamp-query"
            said = authority.stamp(body) if good else b"no"
            self.send_response(404 if self.path == "/gone" else 200)
            self.send_header("Content-Length", str(len(said)))
            self.end_headers()
            self.wfile.write(said)

        def log_message(self, *words):
            pass

    server = http.server.HTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    try:
        url = f"http://127.0.0.1:{server.server_port}/"
        assert stamped_at(fetch_stamp(MESSAGE, url), MESSAGE, roots=authority.roots)
        with pytest.raises(BadArtifact, match="cannot be read"):
            fetch_stamp(MESSAGE, url + "nonsense")
        with pytest.raises(BadArtifact, match="does not stamp"):
            fetch_stamp(MESSAGE, url + "gone")
    finally:
        server.shutdown()
        server.server_close()
        thread.join()
    with pytest.raises(BadArtifact, match="does not stamp"):
        fetch_stamp(MESSAGE, url)
    with pytest.raises(BadConfig, match="no address"):
        fetch_stamp(MESSAGE, "file:///etc/passwd")
