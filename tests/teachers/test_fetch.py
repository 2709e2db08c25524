"""Weights come from a server on this machine that can be told to misbehave: whole files arrive, or none."""

import hashlib
import logging
import os
import random
import resource
import socket
import struct
import subprocess
import sys
import threading
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import launch
import pytest

from unic.core.errors import ConfigError, WeightsError
from unic.core.files import TEMPORARY
from unic.teachers import download
from unic.teachers.fetch import WeightsFile, fetch, weights_dir

CONTENT = random.Random(0).randbytes(2_500_001)
SHA256 = hashlib.sha256(CONTENT).hexdigest()
OTHER = random.Random(1).randbytes(len(CONTENT))
NAME = "x.pth"

Answer = Callable[[BaseHTTPRequestHandler], None]


class Server:
    """Answers the n-th request with the n-th of `answers`, and from then on with the last."""

    def __init__(self):
        self.answers: list[Answer] = [whole()]
        self.requests: list[dict[str, str]] = []
        server = self

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self):
                server.requests.append(dict(self.headers) | {"path": self.path})
                server.answers[min(len(server.requests), len(server.answers)) - 1](self)

            def log_message(self, *_: object):
                pass

        self._http = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self._http.handle_error = lambda *_: None  # clients that leave early
        self.port = self._http.server_address[1]
        threading.Thread(target=self._http.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True).start()

    def close(self) -> None:
        self._http.shutdown()
        self._http.server_close()

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}/weights/{NAME}"

    def file(self, **facts: object) -> WeightsFile:
        return WeightsFile(name=NAME, url=self.url, **facts)

    @property
    def starts(self) -> list[int]:
        """Where each request asked to begin."""
        ranges = [request.get("Range", "bytes=0-") for request in self.requests]
        return [int(text.removeprefix("bytes=").removesuffix("-")) for text in ranges]


def send(handler: BaseHTTPRequestHandler, status: int, body: bytes = b"", **headers: str) -> None:
    handler.send_response(status)
    headers = {name.replace("_", "-"): value for name, value in headers.items()}
    for name, value in {"Content-Length": str(len(body)), **headers}.items():
        if value:
            handler.send_header(name, value)
    handler.end_headers()
    handler.wfile.write(body)


def status(code: int, **headers: str) -> Answer:
    return lambda handler: send(handler, code, b"sorry", **headers)


def whole(
    content: bytes = CONTENT, version: str = '"1"', *, version_in: str = "ETag", if_range: bool = True
) -> Answer:
    """What a server does that knows ranges; if_range: whether it minds the version the client has a part of."""
    headers = {version_in: version}

    def answer(handler: BaseHTTPRequestHandler) -> None:
        wanted = handler.headers.get("Range")
        if wanted is None or (if_range and handler.headers.get("If-Range") != version):
            send(handler, 200, content, **headers)
            return
        start = int(wanted.removeprefix("bytes=").removesuffix("-"))
        if start >= len(content):
            send(handler, 416, Content_Range=f"bytes */{len(content)}")
            return
        place = f"bytes {start}-{len(content) - 1}/{len(content)}"
        send(handler, 206, content[start:], Content_Range=place, **headers)

    return answer


def without_ranges(**headers: str) -> Answer:
    return lambda handler: send(handler, 200, CONTENT, **headers)


def cut_at(length: int, end: str = "close", content: bytes = CONTENT, **headers: str) -> Answer:
    """The first bytes of the whole file, and then the end, a reset or nothing more."""

    def answer(handler: BaseHTTPRequestHandler) -> None:
        headers_sent = {"ETag": '"1"', "Content-Length": str(len(content)), **headers}
        send(handler, 200, content[:length], **headers_sent)
        if end == "stall":
            time.sleep(0.6)
        if end == "reset":
            time.sleep(0.05)  # what is on its way arrives; a reset would take it back
            handler.connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        handler.connection.close()

    return answer


@pytest.fixture
def server() -> Iterator[Server]:
    server = Server()
    yield server
    server.close()


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The folder of weights; waits are short."""
    monkeypatch.setenv("UNIC_WEIGHTS", str(tmp_path / "weights"))
    monkeypatch.setenv("no_proxy", "*")
    monkeypatch.delenv("UNIC_MIRROR", raising=False)
    monkeypatch.setattr(download, "WAITS_SECONDS", (0.01, 0.02, 0.03))
    return tmp_path / "weights"


def sentence(file: WeightsFile, error: type[Exception] = FileNotFoundError, **options: bool) -> str:
    """What a fetch that must fail says; nothing may lie at the file's place after it."""
    with pytest.raises(error) as caught:
        fetch(file, **options)
    assert not (weights_dir() / file.name).exists()
    text = str(caught.value)
    assert "\n" not in text and "Errno" not in text and file.name in text
    return text


def assert_whole(path: Path) -> None:
    assert path == weights_dir() / NAME
    assert path.read_bytes() == CONTENT
    assert not list(path.parent.glob(f"{TEMPORARY}*")), "nothing half-done remains"


def part(folder: Path) -> bytes:
    return (folder / f"{TEMPORARY}{NAME}").read_bytes()


def test_a_file_is_fetched_once_and_is_here_from_then_on(server: Server, folder: Path):
    file = server.file(sha256=SHA256, size=len(CONTENT))
    assert file.here() is None and not folder.exists()
    assert_whole(file())
    assert file.here() == file() == folder / NAME
    assert [request["Accept-Encoding"] for request in server.requests] == ["identity"]


def test_the_folder_is_in_the_cache_unless_the_environment_names_another(monkeypatch, folder: Path):
    assert weights_dir() == folder
    monkeypatch.delenv("UNIC_WEIGHTS")
    monkeypatch.setenv("UNIC_CACHE", "/somewhere")
    assert weights_dir() == Path("/somewhere/weights")


@pytest.mark.parametrize(
    ("answer", "said", "times"),
    [
        (status(404), "HTTP 404 Not Found", 1),
        (status(403), "HTTP 403 Forbidden", 1),
        (status(416), "HTTP 416", 1),
        (status(204), "HTTP 204", 1),
        (status(500), "HTTP 500", 4),
        (status(503), "HTTP 503", 4),
        (status(302, Location=f"/weights/{NAME}"), "redirects", None),
        (status(302, Location="file:///etc/passwd"), "redirects", 1),
        (status(302, Location="ftp://127.0.0.1/x"), "unknown url type: ftp", 1),
        (status(200, Content_Type="text/html; charset=utf-8"), "web page", 1),
        (without_ranges(Content_Encoding="gzip"), "encoded (gzip)", 1),
        (without_ranges(Content_Length=""), "does not say its length", 1),
        (cut_at(len(CONTENT) - 10), f"after {len(CONTENT) - 10} of {len(CONTENT)} bytes", 4),
        (cut_at(0, end="reset", ETag=""), "connection broke after 0 of", 4),
    ],
)
def test_an_answer_that_is_no_file_leaves_nothing_and_says_what_to_do(
    answer: Answer, said: str, times: int | None, server: Server, folder: Path
):
    server.answers = [answer]
    text = sentence(server.file())
    assert said in text and server.url in text and f"put it at {folder / NAME}" in text
    assert times is None or len(server.requests) == times


@pytest.mark.parametrize(("size", "sha256"), [(None, None), (18_700_000, None), (18_700_000, SHA256[:8])])
def test_without_a_server_the_sentence_tells_what_is_published(size: int | None, sha256: str | None, folder):
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        url = f"http://127.0.0.1:{free.getsockname()[1]}/{NAME}"
    text = sentence(WeightsFile(name=NAME, url=url, size=size, sha256=sha256))
    assert "Connection refused" in text and url in text and str(folder / NAME) in text
    assert ("18.7 MB" in text) == (size is not None)
    assert (f"sha256 {SHA256[:8]}..." in text) == (sha256 is not None)


def test_a_name_that_nobody_knows_is_asked_for_once():
    text = sentence(WeightsFile(name=NAME, url=f"http://nowhere.invalid/{NAME}"))
    assert "name of the server is not known" in text or "no answer" in text


@pytest.mark.parametrize("silent", ["name server", "server"])
def test_silence_is_an_answer_after_a_while(silent: str, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(download, "ANSWER_SECONDS", 0.3)
    with socket.socket() as listening:
        listening.bind(("127.0.0.1", 0))
        listening.listen()
        url = f"http://127.0.0.1:{listening.getsockname()[1]}/{NAME}"
        if silent == "name server":  # the C library waits, and no time limit of a socket reaches it
            monkeypatch.setattr(socket, "getaddrinfo", lambda *_, **__: time.sleep(1.5))
        start = time.monotonic()
        assert "no answer within 0.3 s" in sentence(WeightsFile(name=NAME, url=url))
        assert time.monotonic() - start < 1.3


def test_a_server_without_tls_is_named_as_that(server: Server):
    text = sentence(WeightsFile(name=NAME, url=server.url.replace("http:", "https:")))
    assert "no secure connection" in text


@pytest.mark.parametrize("first", [status(500), status(503), lambda handler: handler.connection.close()])
def test_a_server_that_stumbles_is_asked_again(first: Answer, server: Server):
    server.answers = [first, whole()]
    assert_whole(server.file()())
    assert len(server.requests) == 2


@pytest.mark.parametrize("end", ["close", "reset", "stall"])
def test_a_connection_that_ends_early_is_taken_up_where_it_was(end: str, server: Server, monkeypatch):
    monkeypatch.setattr(download, "STALL_SECONDS", 0.2)
    length = len(CONTENT) * 37 // 100
    server.answers = [cut_at(length, end), whole()]
    assert_whole(server.file(sha256=SHA256)())
    assert length - download._BLOCK_BYTES <= server.starts[1] <= length
    assert server.requests[1]["If-Range"] == '"1"'


def test_a_fetch_that_failed_is_taken_up_by_the_next_call(server: Server, folder: Path, monkeypatch):
    monkeypatch.setattr(download, "WAITS_SECONDS", ())
    draws = random.Random(2)
    for length in (1, 2**20, len(CONTENT) - 1, *(draws.randrange(1, len(CONTENT)) for _ in range(5))):
        server.answers, server.requests = [cut_at(length), whole()], []
        assert "next call goes on from there" in sentence(server.file())
        assert part(folder) == CONTENT[:length]
        assert_whole(server.file()())
        assert server.starts == [0, length]
        (folder / NAME).unlink()


def test_a_line_that_breaks_again_and_again_still_brings_the_file(server: Server):
    def some(handler: BaseHTTPRequestHandler) -> None:
        start = int(handler.headers.get("Range", "bytes=0-")[6:-1])
        place = f"bytes {start}-{len(CONTENT) - 1}/{len(CONTENT)}"
        length = str(len(CONTENT) - start)
        facts = {"ETag": '"1"', "Content-Range": place, "Content-Length": length}
        send(handler, 206 if start else 200, CONTENT[start : start + 300_000], **facts)

    server.answers = [some]
    assert_whole(server.file()())
    assert server.starts == list(range(0, len(CONTENT), 300_000))


def test_a_server_that_knows_no_ranges_sends_it_all_again(server: Server):
    server.answers = [cut_at(1000), without_ranges(ETag='"1"')]
    assert_whole(server.file()())
    assert server.starts == [0, 1000]


@pytest.mark.parametrize("facts", [{"ETag": ""}, {"ETag": 'W/"1"'}])
def test_a_part_of_no_certain_version_is_fetched_again(facts: dict[str, str], server: Server):
    server.answers = [cut_at(1000, **facts), whole()]
    assert_whole(server.file()())
    assert server.starts == [0, 0]


def test_the_date_of_a_file_stands_in_for_an_etag(server: Server):
    date = "Mon, 02 Sep 2024 10:00:00 GMT"
    server.answers = [
        cut_at(1000, ETag="", Last_Modified=date),
        whole(version=date, version_in="Last-Modified"),
    ]
    assert_whole(server.file()())
    assert server.starts == [0, 1000] and server.requests[1]["If-Range"] == date


@pytest.mark.parametrize("if_range", [True, False])
def test_two_versions_of_a_file_are_never_joined(if_range: bool, server: Server):
    server.answers = [cut_at(1000, content=OTHER, ETag='"0"'), whole(if_range=if_range)]
    assert_whole(server.file()())


def test_a_part_from_another_address_is_not_continued(server: Server, tmp_path: Path, monkeypatch):
    monkeypatch.setattr(download, "WAITS_SECONDS", ())
    server.answers = [cut_at(1000, content=OTHER), whole()]
    sentence(server.file())
    monkeypatch.setenv("UNIC_MIRROR", f"http://127.0.0.1:{server.port}/mirror")
    assert_whole(server.file()())
    assert server.starts == [0, 0]


def test_a_wrong_place_in_the_file_is_not_written(server: Server):
    def elsewhere(handler: BaseHTTPRequestHandler) -> None:
        place = f"bytes 5-{len(CONTENT) - 1}/{len(CONTENT)}"
        send(handler, 206, CONTENT[5:], ETag='"1"', Content_Range=place)

    server.answers = [cut_at(1000), elsewhere, whole()]
    assert_whole(server.file()())
    assert server.starts == [0, 1000, 0]


@pytest.mark.parametrize("length_known", [True, False])
def test_a_part_that_is_whole_already_needs_no_more_bytes(
    length_known: bool, server: Server, folder, monkeypatch
):
    """As a kill between the last byte and the move leaves it."""

    def chunked(handler: BaseHTTPRequestHandler) -> None:
        handler.protocol_version = "HTTP/1.1"
        send(handler, 200, Content_Length="", ETag='"1"', Transfer_Encoding="chunked", Connection="close")
        handler.wfile.write(b"%x\r\n%b\r\n" % (len(CONTENT), CONTENT) + b"0\r\n\r\n")

    server.answers = [whole() if length_known else chunked, whole()]
    with monkeypatch.context() as patched:
        patched.setattr("unic.teachers.fetch.file_sha256", lambda path: 1 / 0)
        with pytest.raises(ZeroDivisionError):
            server.file()()
    assert part(folder) == CONTENT and not (folder / NAME).exists()
    assert_whole(server.file()())
    assert server.starts == ([0] if length_known else [0, len(CONTENT)])


def test_a_part_longer_than_the_file_is_thrown_away(server: Server, folder: Path, monkeypatch):
    monkeypatch.setattr(download, "WAITS_SECONDS", (0.01,))
    server.answers = [cut_at(1000), status(500), whole(CONTENT[:400])]
    sentence(server.file())
    server.answers = [whole(CONTENT[:400])]
    assert fetch(server.file()).read_bytes() == CONTENT[:400]


@pytest.mark.parametrize("known", [64, 8])
def test_another_file_than_the_published_one_is_set_aside(known: int, server: Server, folder: Path):
    server.answers = [whole(OTHER), whole()]
    file = server.file(sha256=SHA256[:known])
    text = sentence(file, WeightsError)
    assert SHA256[:known] in text and hashlib.sha256(OTHER).hexdigest() in text
    assert str(folder / f"{NAME}.bad") in text and (folder / f"{NAME}.bad").read_bytes() == OTHER
    assert_whole(file())


def test_a_file_of_another_size_than_published_is_refused_before_it_is_fetched(server: Server, folder: Path):
    text = sentence(server.file(size=123_456))
    assert str(len(CONTENT)) in text and "123456" in text
    assert not (folder / f"{TEMPORARY}{NAME}").exists()


@pytest.mark.parametrize("known", [None, 8, 64])
def test_the_sha256_is_recorded_the_way_sha256sum_reads_it(known: int | None, server: Server, folder: Path):
    server.file(sha256=SHA256[:known] if known else None)()
    check = ["sha256sum", "--check", "--strict", f"{NAME}.sha256"]
    assert subprocess.run(check, cwd=folder, capture_output=True, check=False).returncode == 0
    assert f"{SHA256}  {NAME}\n" in (folder / f"{NAME}.sha256").read_text()


def test_a_file_that_changed_since_its_record_is_an_error(server: Server, folder: Path):
    file = server.file()
    file()
    (folder / NAME).write_bytes(OTHER)
    with pytest.raises(WeightsError, match=f"{SHA256} was recorded"):
        file()
    assert (folder / NAME).read_bytes() == OTHER


def test_damage_that_keeps_size_and_time_is_found_by_a_verifying_fetch(server: Server, folder: Path):
    file = server.file(sha256=SHA256)
    facts = file().stat()
    (folder / NAME).write_bytes(OTHER)
    os.utime(folder / NAME, ns=(facts.st_atime_ns, facts.st_mtime_ns))
    assert file() == folder / NAME, "the file is not read at every use"
    with pytest.raises(WeightsError, match=hashlib.sha256(OTHER).hexdigest()):
        fetch(file, verify=True)
    assert (folder / NAME).read_bytes() == OTHER and len(server.requests) == 1


def test_a_file_that_its_authors_replaced_is_not_taken_for_the_recorded_one(server: Server, folder: Path):
    file = server.file()
    file().unlink()
    server.answers = [whole(OTHER)]
    text = sentence(file, WeightsError)
    assert SHA256 in text and f"remove {folder / NAME}.sha256" in text
    (folder / f"{NAME}.sha256").unlink()
    assert file().read_bytes() == OTHER


def test_a_file_placed_by_hand_is_compared_with_what_is_published(server: Server, folder: Path):
    folder.mkdir()
    (folder / NAME).write_bytes(OTHER)
    file = server.file(sha256=SHA256)
    with pytest.raises(WeightsError, match=f"{folder / NAME} .*remove it"):
        file()
    assert (folder / NAME).read_bytes() == OTHER
    (folder / NAME).write_bytes(CONTENT[:-1])
    with pytest.raises(WeightsError, match=f"{len(CONTENT) - 1} bytes, {len(CONTENT)}"):
        server.file(size=len(CONTENT))()
    (folder / NAME).write_bytes(CONTENT)
    assert_whole(file())
    assert not server.requests


@pytest.mark.parametrize("sha256", [None, SHA256])
def test_a_file_placed_by_hand_is_read_once(sha256: str | None, server: Server, folder: Path, monkeypatch):
    folder.mkdir()
    (folder / NAME).write_bytes(CONTENT)
    file = server.file(sha256=sha256)
    assert_whole(file())
    monkeypatch.setattr("unic.teachers.fetch.file_sha256", lambda path: 1 / 0)
    assert_whole(file())


def test_a_record_written_by_sha256sum_is_one(server: Server, folder: Path):
    folder.mkdir()
    (folder / NAME).write_bytes(CONTENT)
    (folder / f"{NAME}.sha256").write_text(f"{hashlib.sha256(OTHER).hexdigest()} *{NAME}\n")
    with pytest.raises(WeightsError, match="was recorded before"):
        server.file()()
    (folder / f"{NAME}.sha256").write_text("not at all")
    with pytest.raises(WeightsError, match=r"x\.pth\.sha256 should hold one line of sha256sum"):
        server.file()()


def test_a_mirror_is_asked_instead_of_the_published_address(server: Server, monkeypatch):
    monkeypatch.setenv("UNIC_MIRROR", f"http://127.0.0.1:{server.port}/a/b/")
    file = WeightsFile(name=NAME, url="https://example.org/of/the/authors.pth", sha256=SHA256)
    assert_whole(file())
    assert [request["path"] for request in server.requests] == [f"/a/b/{NAME}"]


@pytest.mark.parametrize("written_as", ["{}", "file://{}", "file://localhost{}"])
def test_a_folder_as_mirror_is_used_in_place(written_as: str, server: Server, tmp_path, folder, monkeypatch):
    mirror = tmp_path / "our mirror"
    mirror.mkdir()
    place = written_as.format(str(mirror).replace(" ", "%20") if "file:" in written_as else mirror)
    monkeypatch.setenv("UNIC_MIRROR", place)
    file = server.file(sha256=SHA256)
    text = sentence(file)
    assert str(mirror) in text and NAME in text and file.here() is None
    (mirror / NAME).write_bytes(OTHER)
    with pytest.raises(WeightsError, match=SHA256):
        file()
    (mirror / NAME).write_bytes(CONTENT)
    assert file() == file.here() == mirror / NAME
    assert not server.requests
    assert [path.name for path in mirror.iterdir()] == [NAME], "a mirror may be read-only, and is not ours"
    assert [path.name for path in folder.iterdir()] == [f"{NAME}.sha256"]


@pytest.mark.parametrize(
    "text", ["ftp://127.0.0.1/x", "s3://bucket", "/no/such/folder", "http://", "file://host/tmp"]
)
def test_a_mirror_of_another_kind_is_named_with_what_was_wanted(text: str, server: Server, monkeypatch):
    monkeypatch.setenv("UNIC_MIRROR", text)
    with pytest.raises(ConfigError, match=r"UNIC_MIRROR=.*wanted a folder"):
        server.file()()
    assert not server.requests


@pytest.mark.parametrize("place", ["a file", "below a file", "/sys/kernel/unic"])
def test_a_folder_that_cannot_be_written_is_named(place: str, server: Server, tmp_path: Path, monkeypatch):
    (tmp_path / "file").touch()
    places = {"a file": tmp_path / "file", "below a file": tmp_path / "file" / "weights"}
    folder = places.get(place, Path(place))
    monkeypatch.setenv("UNIC_WEIGHTS", str(folder))
    text = sentence(server.file(size=18_700_000), ConfigError)
    assert str(folder) in text and "set UNIC_WEIGHTS" in text and "18.7 MB" in text
    assert not server.requests


def test_a_full_disk_is_one_sentence_and_not_asked_again(server: Server, folder: Path, monkeypatch):
    ordinary = Path.open

    def full(path: Path, mode: str = "r", *more: object, **options: object):
        return ordinary(Path("/dev/full") if mode == "ab" else path, mode, *more, **options)

    with monkeypatch.context() as patched:
        patched.setattr(Path, "open", full)
        text = sentence(server.file(), ConfigError)
    assert "No space left on device" in text and str(folder) in text and "make room" in text
    assert len(server.requests) == 1
    assert_whole(server.file()())


def test_a_file_that_grows_beyond_a_limit_goes_on_when_there_is_room(server: Server, folder: Path):
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (1_500_000, hard))
    try:
        text = sentence(server.file(), ConfigError)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert "File too large" in text
    kept = part(folder)
    assert kept == CONTENT[: len(kept)]
    assert_whole(server.file()())
    assert server.starts == [0, len(kept)]


def fetch_on_a_rank(url: str, folder: str) -> str:
    os.environ.update({"UNIC_WEIGHTS": folder, "no_proxy": "*"})
    return hashlib.sha256(fetch(WeightsFile(name=NAME, url=url)).read_bytes()).hexdigest()


def test_of_two_processes_one_fetches_and_both_have_the_file(server: Server, folder: Path):
    def slow(handler: BaseHTTPRequestHandler) -> None:
        time.sleep(0.5)
        whole()(handler)

    server.answers = [slow]
    assert launch.on_ranks(2, fetch_on_a_rank, server.url, str(folder)) == [SHA256, SHA256]
    assert len(server.requests) == 1


def test_without_a_terminal_lines_tell_how_far_it_is(server: Server, monkeypatch, caplog):
    monkeypatch.setattr("unic.core.progress.SECONDS_BETWEEN_LINES", 0.0)
    with caplog.at_level(logging.INFO, logger="unic"):
        server.file()()
    assert server.url in caplog.messages[0]
    assert "2.5/2.5 MB" in caplog.messages[-1] and "0 s left" in caplog.messages[-1]


def test_on_a_terminal_there_is_a_bar(server: Server, monkeypatch, capsys):
    monkeypatch.setattr(sys.stderr, "isatty", lambda: True)
    monkeypatch.setenv("FORCE_COLOR", "1")
    server.answers = [cut_at(1_250_000, "stall"), whole()]
    assert_whole(server.file()())
    assert "/2.5 MB" in capsys.readouterr().err


@pytest.mark.parametrize(
    "facts",
    [
        {"name": "a/b.pth"},
        {"name": ""},
        {"url": "ftp://example.org/x"},
        {"url": "/here/x.pth"},
        {"sha256": "0123456"},
        {"sha256": "0123456x"},
    ],
)
def test_facts_that_cannot_be_are_refused(facts: dict[str, str]):
    with pytest.raises(ConfigError):
        WeightsFile(**{"name": NAME, "url": "https://example.org/x", **facts})


def test_a_redirection_out_of_https_is_not_followed():
    request = urllib.request.Request("https://example.org/a.pth")
    follow = download._Redirections().redirect_request
    with pytest.raises(urllib.error.URLError, match="not secure"):
        follow(request, None, 302, "Found", {}, "http://example.org/a.pth")
    followed = follow(request, None, 302, "Found", {}, "https://example.org/b.pth")
    assert followed is not None and followed.full_url == "https://example.org/b.pth"
