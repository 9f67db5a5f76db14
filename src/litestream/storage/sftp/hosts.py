"""Which host keys are trusted: those of the configuration, or those of the known_hosts files. No others, ever."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from litestream.errors import StorageError, StoreConfigError

if TYPE_CHECKING:
    import asyncssh

CODE = "HostKey"
FILES = ("~/.ssh/known_hosts", "/etc/ssh/ssh_known_hosts")
_FINGERPRINT = "SHA256:"
_FAMILIES = (
    ("ssh-ed25519",),
    ("ecdsa-sha2-nistp256", "ecdsa-sha2-nistp384", "ecdsa-sha2-nistp521"),
    ("rsa-sha2-512", "rsa-sha2-256"),
)
_ALL = tuple(name for family in _FAMILIES for name in family)


@dataclass(frozen=True, slots=True)
class Pins:
    """What `host-key` says."""

    keys: tuple[asyncssh.SSHKey, ...] = ()
    fingerprints: frozenset[str] = frozenset()


def check_pins(text: str) -> Pins:
    """The keys and fingerprints of `host-key`. Raises `StoreConfigError`."""
    import asyncssh

    keys, fingerprints = [], set()
    for line in text.splitlines():
        words = line.split()
        if not words or words[0].startswith("#"):
            continue
        if words[0].startswith(_FINGERPRINT):
            fingerprints.add(words[0].rstrip("="))
            continue
        # A line of known_hosts, or of ssh-keyscan, has the host before the key.
        for candidate in (words, words[1:]):
            try:
                keys.append(asyncssh.import_public_key(" ".join(candidate[:2])))
                break
            except (ValueError, IndexError):
                continue
        else:
            raise StoreConfigError(
                "host-key", "host-key must be public keys as in known_hosts (ssh-ed25519 AAAA…), or SHA256:… of them"
            )
    if text.strip() and not keys and not fingerprints:
        raise StoreConfigError("host-key", "host-key has no key in it")
    return Pins(tuple(keys), frozenset(fingerprints))


@dataclass(slots=True)
class HostKeys:
    """The decision about one server.

    Attributes:
        files: what the known_hosts files say.
        offered: the key that was refused, for the error.
        authority: whether it was that of an authority that vouches for the server.
        trusted: the keys that would have been accepted.
    """

    url: str
    host: str
    port: int
    pins: Pins
    files: asyncssh.SSHKnownHosts | None = None
    offered: asyncssh.SSHKey | None = None
    authority: bool = False
    trusted: Sequence[asyncssh.SSHKey] = field(default_factory=list)

    def algorithms(self) -> Sequence[Sequence[str]]:
        """Kinds of keys to ask the server for, in turn, as long as none is accepted.

        Empty: what goes with the trusted keys. A server without such a key hangs up, so it is asked for any after that
        (and refused with it). A fingerprint does not say of which of its keys it is, so each is asked for.
        """
        return _FAMILIES if self.pins.fingerprints else ((), _ALL)

    def known(self, host: str, addr: str, port: int | None) -> Sequence[Sequence[Any]]:
        """Trusted keys, authorities and revoked keys, for asyncssh; `read` comes first."""
        import asyncssh

        if self.pins.keys or self.pins.fingerprints:
            self.trusted = self.pins.keys
            return self.pins.keys, [], []
        found = asyncssh.match_known_hosts(self.files, host, addr, port) if self.files else ([], [], [])
        self.trusted = found[0]
        return found

    def accepts(self, key: asyncssh.SSHKey) -> bool:
        """Whether a key that is not among `known` is trusted all the same: by its fingerprint."""
        self.offered = key
        return key.get_fingerprint() in self.pins.fingerprints

    def refuse_authority(self, key: asyncssh.SSHKey) -> bool:
        """An authority that is not in the known_hosts files: never trusted."""
        self.offered, self.authority = key, True
        return False

    def refusal(self) -> StorageError:
        """The error about a key that is not trusted, with what to write where."""
        place = self.host if self.port == 22 else f"[{self.host}]:{self.port}"
        text = "the host key is revoked, or cannot be verified: nothing was sent"
        if self.offered is not None:
            text = self._about_key(place, self.offered)
        return StorageError(f"{self.url}: {text}", permanent=True, code=CODE)

    def _about_key(self, place: str, key: asyncssh.SSHKey) -> str:
        shown = key.export_public_key().decode("ascii", "replace").strip()
        shown = " ".join(shown.split()[:2])
        said = f"{place} shows the key {key.get_fingerprint()}"
        if self.authority:
            return (
                f"{said} of an authority nobody here trusts: add to ~/.ssh/known_hosts: @cert-authority {place} {shown}"
            )
        if self.trusted or self.pins.fingerprints:
            where = "host-key" if self.pins.keys or self.pins.fingerprints else "known_hosts"
            return (
                f"THE HOST KEY HAS CHANGED: {said}, which is not the one in {where}: somebody may be listening in, or "
                f"the server was set up anew. Nothing was sent. Ask its administrator; if the new key is right, put it "
                f"in the place of the old one: {shown}"
            )
        return (
            f"the host key is not known: {said}. If that is right (ask its administrator), add this line to "
            f"~/.ssh/known_hosts: {place} {shown} or to the replica: host-key: {shown}"
        )

    def read(self) -> None:
        """Read the known_hosts files, if they are asked. `StorageError` if one cannot be understood."""
        import asyncssh

        if self.pins.keys or self.pins.fingerprints:
            return
        known = asyncssh.import_known_hosts("")
        for name in FILES:
            try:
                with open(os.path.expanduser(name), encoding="utf-8", errors="replace") as file:
                    known.load(file.read())
            except OSError:
                continue  # not there, or not for us: no key in it is trusted
            except ValueError:
                text = f"{self.url}: {name} has a line that is none of a known_hosts file: correct it, or set host-key"
                raise StorageError(text, permanent=True, code=CODE) from None
        self.files = known
