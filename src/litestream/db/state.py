"""The one small file that says which generation the local state belongs to.

The local state directory may be shared with the official program (same path), may be deleted at any time and may be
a copy from another host. So the file has a name of its own, foreign files are left alone, and nothing is believed
without proof from the WAL: losing this file costs a new generation, never data.
"""

from __future__ import annotations

import json
import os
from dataclasses import asdict, dataclass, field

from litestream import fsutil
from litestream.core.position import Pos, is_generation
from litestream.errors import InvalidNameError

_NAME = "state.json"
_VERSION = 1
_LIMIT = 64 * 1024


@dataclass(slots=True)
class State:
    """What survives a restart beside the shadow WAL."""

    generation: str = ""
    previous: str = ""
    """`str(Pos)` at which the generation before this one ended."""
    device: int = 0
    inode: int = 0
    last_commit_ns: int = 0
    """No commit of this generation has an earlier time: times go forward even if the clock does not."""
    base_sha256: str = ""
    """Hash of the database file while the WAL held nothing: proof that nothing was written in between."""
    generations: list[str] = field(default_factory=list)
    """Generations whose shadow directories are ours to delete."""
    base: dict[str, str] = field(default_factory=dict)
    """Where the live WAL stood when a catch-up ended, see `litestream.db.capture.Base`, and at which position that was;
    empty if there was none."""

    @property
    def previous_pos(self) -> Pos:
        return Pos.parse(self.previous)


def load(meta: str) -> State:
    """The stored state; an empty one where there is none or it is not to be believed."""
    try:
        with open(os.path.join(meta, _NAME), "rb") as file:
            raw = json.loads(file.read(_LIMIT))
    except (OSError, ValueError, RecursionError):
        return State()
    if not isinstance(raw, dict) or raw.pop("version", None) != _VERSION:
        return State()
    try:
        state = State(**raw)
        state.previous_pos  # noqa: B018 - parsing is the check
    except (TypeError, InvalidNameError):
        return State()
    names = [state.generation, *state.generations] if isinstance(state.generations, list) else [None]
    if not all(isinstance(name, str) and is_generation(name) for name in names):
        return State()
    if not all(isinstance(number, int) for number in (state.device, state.inode, state.last_commit_ns)):
        return State()
    if not isinstance(state.base, dict) or not all(isinstance(text, str) for text in state.base.values()):
        return State()
    return state


def store(meta: str, state: State, access: fsutil.Access) -> None:
    """Write the state durably."""
    raw = json.dumps({"version": _VERSION, **asdict(state)}).encode()
    fsutil.write_atomic(os.path.join(meta, _NAME), raw, mode=access.file_mode, owner=access.owner)
