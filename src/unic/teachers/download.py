"""One file over http, gone on with where it was cut short, with progress. What it is for is `fetch`'s business."""

import contextlib
import http.client
import json
import logging
import os
import queue
import re
import socket
import ssl
import threading
import time
import urllib.error
import urllib.request
from email.message import Message
from pathlib import Path
from urllib.parse import urlsplit

from unic.core.files import TEMPORARY, write_atomically
from unic.core.progress import Progress

log = logging.getLogger(__name__)

# From looking up the server's name to its answer, over all its addresses and redirections.
ANSWER_SECONDS = 9.0
# Without a single byte.
STALL_SECONDS = 10.0
# Before each new request after one that brought nothing.
WAITS_SECONDS = (1.0, 4.0, 10.0)

_BLOCK_BYTES = 2**20


class FailedError(Exception):
    """Why nothing, or not everything, came."""

    def __init__(self, why: str, *, again: bool):
        super().__init__(why)
        self.again = again
        """Whether asking again may help."""
        self.part_is_kept = False


class Download:
    """One file on its way: the part that came, and a note of the version on the server that it is a part of."""

    def __init__(self, url: str, target: Path, *, size: int | None, is_checked: bool):
        """size: in bytes, where it is published; is_checked: what comes will be compared with published facts."""
        self.name = target.name
        self.url = url
        self.size = size
        self.is_checked = is_checked
        self.part = target.with_name(f"{TEMPORARY}{target.name}")
        self.note = target.with_name(f"{TEMPORARY}{target.name}.json")
        self._answered = False

    def complete(self) -> None:
        """Makes the part the whole, with as many requests as that takes. Raises FailedError."""
        log.info("%s: fetching %s", self.name, self.url)
        failures, furthest = 0, self._come()
        with contextlib.closing(Progress(self.name, "MB", furthest / 1e6)) as progress:
            while True:
                try:
                    return self._ask_for_rest(progress)
                except FailedError as failed:
                    size = self._come()
                    failures = 0 if size > furthest else failures
                    furthest = max(size, furthest)
                    if not failed.again or failures == len(WAITS_SECONDS):
                        failed.part_is_kept = size > 0 and _validator(self._version_of_part()) is not None
                        raise
                    log.info("%s: %s; again in %.0f s", self.name, failed, WAITS_SECONDS[failures])
                    time.sleep(WAITS_SECONDS[failures])
                    failures += 1

    def discard(self) -> None:
        self.part.unlink(missing_ok=True)  # before its note: a part is never taken for one of another version
        self.note.unlink(missing_ok=True)

    def _come(self) -> int:
        return self.part.stat().st_size if self.part.exists() else 0

    def _ask_for_rest(self, progress: Progress) -> None:
        size, version = self._come(), self._version_of_part()
        if size and size == version.get("total"):
            return
        headers = {"User-Agent": "unic", "Accept-Encoding": "identity"}
        start, validator = size, _validator(version)
        if start and validator:
            headers |= {"Range": f"bytes={start}-", "If-Range": validator}
        else:
            start = 0
        with contextlib.closing(self._answer(urllib.request.Request(self.url, headers=headers))) as answer:
            if start and _status(answer) == 416 and _total(answer) == start:
                return
            self._refuse_other_than_weights(answer, start)
            if _status(answer) == 206 and not _continues(answer, start, version):
                self.discard()
                raise FailedError("the server went on with another part or version of the file", again=True)
            self._read(answer, start if _status(answer) == 206 else 0, progress)

    def _version_of_part(self) -> dict:
        try:
            version = json.loads(self.note.read_bytes())
        except (FileNotFoundError, ValueError):
            return {}
        return version if isinstance(version, dict) and version.get("url") == self.url else {}

    def _answer(self, request: urllib.request.Request) -> "_Answer":
        """The server's answer, whatever it says.

        Asked in a thread: neither the look-up of a name nor a list of dead addresses keeps to a time limit.
        """
        answers = queue.SimpleQueue()

        def ask() -> None:
            try:
                opener = urllib.request.build_opener(_Redirections)  # also through a proxy of the environment
                answers.put(opener.open(request, timeout=STALL_SECONDS))
            except Exception as error:
                answers.put(error)

        threading.Thread(target=ask, daemon=True).start()
        try:
            answer = answers.get(timeout=ANSWER_SECONDS)
        except queue.Empty:
            answer = TimeoutError()
        if isinstance(answer, Exception) and not isinstance(answer, urllib.error.HTTPError):
            reason = answer.reason if isinstance(answer, urllib.error.URLError) else answer
            cut = isinstance(reason, ConnectionResetError | BrokenPipeError | http.client.BadStatusLine)
            # Without a network, asking again would only make people wait.
            raise FailedError(_why(reason), again=self._answered or cut) from answer
        self._answered = True
        return answer

    def _refuse_other_than_weights(self, answer: "_Answer", start: int) -> None:
        if _status(answer) == 416 and start:
            self.discard()
            raise FailedError("the part that came does not fit the file on the server", again=True)
        if 300 <= _status(answer) < 400:
            raise FailedError(f"HTTP {_status(answer)}, it redirects to no file", again=False)
        if _status(answer) not in (200, 206) or (_status(answer) == 206 and not start):
            raise FailedError(f"HTTP {_status(answer)} {answer.reason}", again=_status(answer) >= 500)
        if answer.headers.get_content_type() in ("text/html", "application/xhtml+xml"):
            raise FailedError("the server sent a web page instead of the file", again=False)
        encoding = answer.headers.get("Content-Encoding") or "identity"
        if encoding.lower() != "identity":
            raise FailedError(
                f"the server sent it encoded ({encoding}), which was not asked for", again=False
            )
        total = _total(answer)
        if self.size and total not in (None, self.size):
            raise FailedError(f"it has {total} bytes there, not {self.size}", again=False)
        end_is_marked = total is not None or answer.headers.get("Transfer-Encoding") == "chunked"
        if not (end_is_marked or self.is_checked):
            raise FailedError("the server does not say its length, so a cut would go unnoticed", again=False)

    def _read(self, answer: "_Answer", start: int, progress: Progress) -> None:
        total = _total(answer) or self.size
        if not start:
            self.discard()
            version = {name: answer.headers[name] for name in ("ETag", "Last-Modified")}
            write_atomically(self.note, json.dumps({"url": self.url, "total": total, **version}).encode())
        done = start
        with self.part.open("ab") as part:
            while block := self._block(answer, done, total):
                part.write(block)
                done += len(block)
                progress.update(done / 1e6, total / 1e6 if total else None)
            part.flush()
            os.fsync(part.fileno())
        if total is not None and done != total:
            raise FailedError(f"the connection ended after {done} of {total} bytes", again=True)

    def _block(self, answer: "_Answer", done: int, total: int | None) -> bytes:
        try:
            return answer.read1(_BLOCK_BYTES)
        except TimeoutError as error:
            why = f"nothing came for {STALL_SECONDS:g} s after {done} of {total or '?'} bytes"
            raise FailedError(why, again=True) from error
        except (OSError, http.client.HTTPException) as error:
            why = f"the connection broke after {done} of {total or '?'} bytes"
            raise FailedError(why, again=True) from error


_Answer = http.client.HTTPResponse | urllib.error.HTTPError


def _status(answer: _Answer) -> int:
    return answer.status or 0


class _Redirections(urllib.request.HTTPRedirectHandler):
    """Follows redirections over http and https, but not out of https."""

    def redirect_request(self, req, fp, code, msg, headers, newurl):
        scheme = urlsplit(newurl).scheme
        if scheme not in ("http", "https"):
            raise urllib.error.URLError(f"unknown url type: {scheme}")
        if req.type == "https" and scheme != "https":
            raise urllib.error.URLError("it redirects from https to a connection that is not secure")
        return super().redirect_request(req, fp, code, msg, headers, newurl)


def _why(reason: object) -> str:
    match reason:
        case TimeoutError():
            return f"no answer within {ANSWER_SECONDS:g} s"
        case ssl.SSLError():
            return f"no secure connection ({reason.strerror or reason})"
        case socket.gaierror():
            return f"the name of the server is not known here ({reason.strerror})"
        case ConnectionResetError():
            return "the server closed the connection without an answer"
        case OSError():
            return reason.strerror or str(reason)
    return str(reason) or type(reason).__name__


def _validator(version: dict) -> str | None:
    """What names this very version of a file to its server. A weak ETag promises too little."""
    etag = version.get("ETag")
    return etag if etag and not etag.startswith("W/") else version.get("Last-Modified")


def _total(answer: _Answer) -> int | None:
    """The length of the whole file in bytes, where the answer tells it."""
    headers = answer.headers
    if _status(answer) in (206, 416):
        return int(found[1]) if (found := re.search(r"/(\d+)$", headers.get("Content-Range", ""))) else None
    length = headers.get("Content-Length", "")
    return int(length) if length.isdecimal() and not headers.get("Transfer-Encoding") else None


def _continues(answer: _Answer, start: int, version: dict) -> bool:
    """Whether an answer is the rest of the very file that the part is of: some servers ignore If-Range."""
    headers: Message = answer.headers
    same_version = all(headers.get(name) in (None, version.get(name)) for name in ("ETag", "Last-Modified"))
    same_length = _total(answer) is not None and version.get("total") in (None, _total(answer))
    return same_version and same_length and headers.get("Content-Range", "").startswith(f"bytes {start}-")
