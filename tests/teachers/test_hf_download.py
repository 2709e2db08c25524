"""Files of the hub, from a server of our own that answers as the hub does."""

import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

from unic.core.errors import ConfigError
from unic.teachers.hf_download import hub_file

COMMIT = "1" * 40


class Hub(BaseHTTPRequestHandler):
    """One repository, me/mine, with one file; a second one is closed."""

    def do_HEAD(self):
        self.answer(b"")

    def do_GET(self):
        self.answer(b"{}")

    def answer(self, body: bytes):
        here = self.path == "/me/mine/resolve/main/there.json" or COMMIT in self.path
        closed = self.path.startswith("/me/closed/")
        self.send_response(200 if here else 401 if closed else 404)
        if not here:
            self.send_header("X-Error-Code", "GatedRepo" if closed else "EntryNotFound")
        self.send_header("X-Repo-Commit", COMMIT)
        self.send_header("ETag", '"abc"')
        self.send_header("Content-Length", "2" if here else "0")
        self.end_headers()
        self.wfile.write(body if here else b"")

    def log_message(self, *_):
        pass


@pytest.fixture
def hub(hub_cache: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[ThreadingHTTPServer]:
    server = ThreadingHTTPServer(("127.0.0.1", 0), Hub)
    threading.Thread(target=server.serve_forever, args=(0.01,), daemon=True).start()
    url = f"http://127.0.0.1:{server.server_port}/{{repo_id}}/resolve/{{revision}}/{{filename}}"
    monkeypatch.setattr("huggingface_hub.constants.HUGGINGFACE_CO_URL_TEMPLATE", url)
    yield server
    server.shutdown()
    server.server_close()


def test_what_was_learnt_online_is_known_offline(hub: ThreadingHTTPServer):
    path = hub_file("me/mine", "there.json", reference="mine")
    assert path is not None and path.read_text() == "{}"
    assert hub_file("me/mine", "absent.json", reference="mine") is None
    hub.shutdown()
    hub.server_close()
    assert hub_file("me/mine", "there.json", reference="mine") == path
    assert hub_file("me/mine", "absent.json", reference="mine") is None
    with pytest.raises(FileNotFoundError, match=r"mine: not in the hub's cache, .* other.json of me/mine"):
        hub_file("me/mine", "other.json", reference="mine")


def test_of_several_names_the_first_that_exists_is_taken(hub: ThreadingHTTPServer):
    path = hub_file("me/mine", "absent.json", "there.json", reference="mine")
    assert path is not None and path.name == "there.json"


def test_a_cached_alternative_needs_no_question_about_the_others(hub: ThreadingHTTPServer):
    path = hub_file("me/mine", "there.json", reference="mine")
    hub.shutdown()
    hub.server_close()
    assert hub_file("me/mine", "other.json", "there.json", reference="mine") == path


def test_a_repository_that_refuses_is_explained(hub: ThreadingHTTPServer):
    with pytest.raises(FileNotFoundError, match=r"closed: .*401"):
        hub_file("me/closed", "there.json", reference="closed")


def test_a_path_is_no_name_of_a_repository():
    with pytest.raises(ConfigError, match="neither a folder here nor the name of a repository"):
        hub_file("/a/b/c", "there.json", reference="hf:/a/b/c")
