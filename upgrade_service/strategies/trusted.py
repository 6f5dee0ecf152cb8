"""Files that decide what runs as root: whether nobody but root can have written them."""

import hashlib
import os
import pathlib
import stat

#: entries looked at below one directory; more than a collection of playbooks has
MOST = 50_000


def fault(path: str) -> str | None:
    """Say why a file or directory must not be trusted, or None.

    It and every directory above it belong to root (or to the user that this process is),
    no one else may write to them, and none is a symbolic link. A directory that all may
    write to does not matter if it is sticky: entries there are safe from others.
    """
    if not path.startswith('/') or os.path.normpath(path) != path:
        return f'{path} is not a plain absolute path'
    for one in (pathlib.PurePath(path), *pathlib.PurePath(path).parents):
        try:
            found = os.lstat(one)
        except OSError as e:
            return f'{one}: {e.strerror}'
        why = _of(found)
        if why:
            return f'{one} {why}'
    return None


def _of(found: os.stat_result) -> str | None:
    if stat.S_ISLNK(found.st_mode):
        return 'is a symbolic link: name the real path'
    if found.st_uid not in (0, os.geteuid()):
        return 'must belong to root: chown root'
    others = found.st_mode & 0o022
    if others and not (stat.S_ISDIR(found.st_mode) and found.st_mode & stat.S_ISVTX):
        return 'can be written by group or others: chmod go-w'
    return None


def tree_fault(directory: str) -> str | None:
    """Say what below a directory (roles, tasks, templates) must not be trusted, or None.

    Links are allowed there if they stay below it: roles are often linked to one another.
    """
    count = 0
    root = os.path.realpath(directory)
    for place, directories, files in os.walk(directory):
        for name in (*directories, *files):
            count += 1
            path = os.path.join(place, name)
            found = os.lstat(path)
            if stat.S_ISLNK(found.st_mode):
                if not os.path.realpath(path).startswith(f'{root}/'):
                    return f'{path} leads out of {directory}'
            elif why := _of(found):
                return f'{path} {why}'
            if count > MOST:
                return f'{directory} holds more than {MOST} files: name a smaller directory'
    return None


def secret_fault(path: str) -> str | None:
    """Say why a file with a secret must not be used, or None."""
    why = fault(path)
    if why is None and os.stat(path).st_mode & 0o077:
        return f'{path} can be read by group or others: chmod 0600'
    return why


def digest(path: str) -> str:
    """Return the sha256 (hex) of a file."""
    with open(path, 'rb') as f:
        return hashlib.file_digest(f, 'sha256').hexdigest()
