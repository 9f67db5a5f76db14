"""Keys of age: from the text of the configuration, where every mistake is an error. The only importer of pyrage."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from litestream.errors import StoreConfigError
from litestream.storage.age.pump import Reader, WorkError, Writer

MAX_RECIPIENTS = 64
"""Each takes about 100 bytes in the head of every object, however small."""


class AgeKeys:
    """Recipients, for whom is encrypted, and identities, which decrypt; one of the two may be missing.

    Args:
        recipients: public keys (`age1…`).
        identities: secret keys (`AGE-SECRET-KEY-1…`).

    Each entry is a key, or several lines of keys, empty lines and `#` comments (the content of a key file). Raises
    `StoreConfigError`, which never shows an entry: for one that is no such key or none at all, where there is no key
    on either side, where no identity is that of a recipient, and for more than 64 recipients.
    """

    def __init__(self, recipients: Sequence[str], identities: Sequence[str]) -> None:
        self._pyrage = _pyrage()
        x25519 = self._pyrage.x25519
        self.recipients = [_recipient(x25519, n, line) for n, line in _lines("age.recipients", recipients)]
        self.identities = [_identity(x25519, n, line) for n, line in _lines("age.identities", identities)]
        if not self.recipients and not self.identities:
            raise StoreConfigError(
                "age", "age has neither recipients nor identities: set age.recipients, or take the section away"
            )
        if len(self.recipients) > MAX_RECIPIENTS:
            raise StoreConfigError("age.recipients", f"more than {MAX_RECIPIENTS} recipients")
        own = [str(identity.to_public()) for identity in self.identities]
        if self.recipients and own and not {str(recipient) for recipient in self.recipients}.intersection(own):
            raise StoreConfigError(
                "age.identities",
                "no entry of age.identities belongs to one of age.recipients, so that what is written could not be "
                f"read here: add {own[0]} to age.recipients (or, to write only, leave age.identities out)",
            )

    def encrypt(self, data: bytes) -> bytes:
        """`data` for all recipients. Blocks, and lets no other thread run: for small objects."""
        return _bytes(self._pyrage.encrypt, data, self.recipients)

    def decrypt(self, data: bytes) -> bytes:
        """The content of a small age file, all of it authenticated. Raises `WorkError`."""
        return _bytes(self._pyrage.decrypt, data, self.identities)

    def encrypt_all(self, reader: Reader, writer: Writer) -> None:
        """The same for a stream: blocks until the end of `reader`."""
        self._pyrage.encrypt_io(reader, writer, self.recipients)

    def decrypt_all(self, reader: Reader, writer: Writer) -> None:
        """The same for a stream. Each 64 KiB are authenticated before they are written."""
        self._pyrage.decrypt_io(reader, writer, self.identities)


def _pyrage() -> Any:  # noqa: ANN401 - pyrage publishes no types
    try:
        import pyrage
    except ImportError as error:
        raise StoreConfigError("age", 'age encryption needs an extra package: install "litestream[age]"') from error
    return pyrage


def _bytes(call: Callable[[bytes, list[Any]], bytes], data: bytes, keys: list[Any]) -> bytes:
    try:
        return call(data, keys)
    except Exception as error:
        raise WorkError(" ".join(str(error).split())) from error


def _lines(setting: str, entries: Sequence[str]) -> list[tuple[str, str]]:
    """Where each key stands, and its text."""
    found = []
    for number, entry in enumerate([entries] if isinstance(entries, str) else entries, 1):
        where = f"entry {number} of {setting}"
        lines = [line.strip() for line in entry.splitlines()]
        keys = [line for line in lines if line and not line.startswith("#")]
        if not keys:
            raise StoreConfigError(setting, f"{where} holds no key: is an environment variable not set?")
        found += [(where, line) for line in keys]
    return found


def _recipient(x25519: Any, where: str, line: str) -> Any:  # noqa: ANN401
    try:
        return x25519.Recipient.from_str(line)
    except Exception:  # pyrage's text is not shown, nor chained: it may repeat the entry
        why = "is misspelt, or a kind of key that is not known here: a recipient begins with age1"
        if line.upper().startswith("AGE-SECRET-KEY-"):
            why = "is a secret key: that belongs under age.identities"
        elif line.startswith("ssh-"):
            why = "is an SSH key, which cannot be used: make a key of age with age-keygen"
    raise StoreConfigError("age.recipients", f"{where} {why}")


def _identity(x25519: Any, where: str, line: str) -> Any:  # noqa: ANN401
    try:
        return x25519.Identity.from_str(line)
    except Exception:  # as above
        why = "is misspelt, or a kind of key that is not known here: an identity begins with AGE-SECRET-KEY-1"
        if line.lower().startswith("age1"):
            why = "is a public key: that belongs under age.recipients"
        elif line.startswith("-----BEGIN"):
            why = "is a private key of another program: make a key of age with age-keygen"
    raise StoreConfigError("age.identities", f"{where} {why}")
