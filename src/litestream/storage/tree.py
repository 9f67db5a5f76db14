"""The directory tree of a file store as a list of objects."""

from __future__ import annotations

import errno
import os
import stat

from litestream.fsutil import is_temp_name
from litestream.storage.keys import is_key
from litestream.storage.protocol import ObjectInfo


def scan(root: str, prefix: str) -> list[ObjectInfo]:
    """All objects below `root` whose key begins with `prefix`, sorted by key. Raises `OSError`.

    An absent root has none. Temporary files, pipes and the like, links to nowhere and names that are no keys are
    passed over; links are followed unless they lead back up. What cannot be read is an error.
    """
    found: list[ObjectInfo] = []
    try:
        _walk(os.path.join(root, prefix), prefix, (), found)
    except (FileNotFoundError, NotADirectoryError):
        _check_root(root)  # nothing of that prefix; but a root that is a file is no empty replica
    found.sort(key=lambda info: info.key)
    return found


def _check_root(root: str) -> None:
    try:
        status = os.stat(root)
    except FileNotFoundError:
        return
    if not stat.S_ISDIR(status.st_mode):
        raise NotADirectoryError(errno.ENOTDIR, os.strerror(errno.ENOTDIR))


def _walk(directory: str, prefix: str, above: tuple[tuple[int, int], ...], found: list[ObjectInfo]) -> None:
    status = os.stat(directory)
    identity = (status.st_dev, status.st_ino)
    if identity in above:
        return  # a symbolic link that leads back up
    below = []
    with os.scandir(directory) as entries:
        for entry in entries:
            if is_temp_name(entry.name) or not is_key(prefix + entry.name):
                continue
            try:
                status = entry.stat()
            except OSError as e:
                if e.errno in {errno.ENOENT, errno.ELOOP, errno.ENOTDIR}:
                    continue  # deleted meanwhile, or a link to nowhere
                raise
            if stat.S_ISDIR(status.st_mode):
                below.append(entry.name)
            elif stat.S_ISREG(status.st_mode):
                found.append(ObjectInfo(prefix + entry.name, status.st_size, status.st_mtime))
    for name in below:
        try:
            _walk(os.path.join(directory, name), f"{prefix}{name}/", (*above, identity), found)
        except (FileNotFoundError, NotADirectoryError):
            continue  # deleted meanwhile
