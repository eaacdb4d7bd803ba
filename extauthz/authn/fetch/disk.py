"""The last good key sets on disk (`--jwks-cache-dir`), so that a restart while an issuer is down can serve.

One file for each plan, readable by its owner only, replaced as a whole. A file's modification time is when its content
was last confirmed by the issuer. What others could have written is not read: whoever writes here makes keys.
"""

from __future__ import annotations

import hashlib
import json
import os
import stat
import tempfile
import time
from contextlib import suppress
from dataclasses import dataclass

from extauthz.authn.fetch.options import MAX_BODY_BYTES
from extauthz.errors import UsageError

_MAX_FILE_BYTES = 8 * MAX_BODY_BYTES


@dataclass(frozen=True, slots=True)
class Saved:
    """A key set as it was fetched, from where, its ETag, and how many seconds ago it was last confirmed."""

    url: str
    body: str
    etag: str
    age: float


class DiskCache:
    """Key sets in the files of a directory. Raises UsageError when the directory cannot be used."""

    def __init__(self, directory: str) -> None:
        self._directory = directory
        try:
            os.makedirs(directory, mode=0o700, exist_ok=True)
            status = os.stat(directory)
        except OSError as error:
            raise UsageError(f"--jwks-cache-dir {directory}: {error.strerror}") from None
        if not stat.S_ISDIR(status.st_mode) or not os.access(directory, os.W_OK | os.X_OK):
            raise UsageError(f"--jwks-cache-dir {directory}: not a directory that can be written")
        if status.st_mode & stat.S_IWOTH and not status.st_mode & stat.S_ISVTX:
            raise UsageError(f"--jwks-cache-dir {directory}: everybody can write there, and so make keys: chmod o-w")

    def load(self, fingerprint: str) -> Saved | None:
        """What is kept under `fingerprint`, None for nothing. Raises OSError or ValueError for a file of no use."""
        try:
            descriptor = os.open(self._path(fingerprint), os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC | os.O_NONBLOCK)
        except FileNotFoundError:
            return None
        with open(descriptor, "rb") as file:
            status = os.fstat(descriptor)
            if not stat.S_ISREG(status.st_mode) or status.st_size > _MAX_FILE_BYTES:
                raise ValueError("not a file of this cache")
            if status.st_uid not in (0, os.geteuid()) or status.st_mode & (stat.S_IWGRP | stat.S_IWOTH):
                raise ValueError("others can write it")
            try:
                members = json.loads(file.read())
            except RecursionError:
                raise ValueError("nested too deeply") from None
        if not isinstance(members, dict) or not all(isinstance(members.get(m), str) for m in ("url", "body", "etag")):
            raise ValueError("not a file of this cache")
        age = max(time.time() - status.st_mtime, 0.0)
        return Saved(members["url"], members["body"], members["etag"], age)

    def save(self, fingerprint: str, url: str, body: str, etag: str) -> None:
        """Keep a key set that was fetched just now. Raises OSError."""
        content = json.dumps({"url": url, "etag": etag, "body": body}).encode()
        descriptor, temporary = tempfile.mkstemp(prefix=".new-", dir=self._directory)
        try:
            with open(descriptor, "wb") as file:
                file.write(content)
                file.flush()
                os.fsync(descriptor)
            os.replace(temporary, self._path(fingerprint))
        except OSError:
            with suppress(OSError):
                os.unlink(temporary)
            raise

    def confirm(self, fingerprint: str) -> None:
        """The issuer has said that what is kept is still so. Raises OSError."""
        os.utime(self._path(fingerprint))

    def _path(self, fingerprint: str) -> str:
        return os.path.join(self._directory, f"{fingerprint}.json")


def fingerprint_of(*parts: object) -> str:
    """A file name for what `parts` (of JSON's types) describe: different parts, different names."""
    return hashlib.sha256(json.dumps(parts).encode()).hexdigest()[:40]
