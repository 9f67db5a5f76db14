"""Ways to prove to a NATS server who we are, and to have it prove who it is."""

from __future__ import annotations

import ssl
from typing import TYPE_CHECKING, Any

from litestream.errors import StorageError, StoreConfigError

if TYPE_CHECKING:
    from litestream.storage.nats import NATSConfig

CODE = "AccessDenied"


def check_seed(config: NATSConfig) -> None:
    """Raise `StoreConfigError` for a seed that is none, or that is not the one of `nkey`."""
    if not config.seed:
        return
    import nkeys  # type: ignore[import-untyped]  # it has no types

    try:
        pair = nkeys.from_seed(bytearray(config.seed.strip().encode()))
    except Exception:  # nkeys raises its own, binascii's and ValueError, some with the seed in it
        raise StoreConfigError("seed", "seed is none: it begins with SU and has 58 characters") from None
    public = pair.public_key.decode()
    pair.wipe()
    if config.nkey and config.nkey.strip() != public:
        raise StoreConfigError("nkey", "nkey is not the public key of seed")


def login(config: NATSConfig) -> tuple[dict[str, Any], str]:
    """Arguments for the client, and what to call them in an error. Files are read anew for each connection."""
    from nats.aio.client import RawCredentials

    if config.creds:
        return {"user_credentials": RawCredentials(_read_creds(config))}, "creds"
    if config.jwt:
        text = f"-----BEGIN NATS USER JWT-----\n{config.jwt.strip()}\n------END NATS USER JWT------\n"
        text += f"-----BEGIN USER NKEY SEED-----\n{config.seed.strip()}\n------END USER NKEY SEED------\n"
        return {"user_credentials": RawCredentials(text)}, "jwt and seed"
    if config.seed:
        return {"nkeys_seed_str": config.seed.strip()}, "nkey and seed"
    if config.username:
        return {"user": config.username, "password": config.password}, "username and password"
    if config.token:
        return {"token": config.token}, "token"
    return {}, "client-cert" if config.client_cert else "no username, token, nkey or creds"


def tls_context(config: NATSConfig) -> ssl.SSLContext:
    """Whom to trust. Raises `StorageError` for a file that cannot be read."""
    context = ssl.create_default_context() if not config.root_cas else ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    for name in config.root_cas:
        try:
            context.load_verify_locations(name)
        except (OSError, ssl.SSLError) as error:
            raise _unreadable(config, "root-cas", name, error) from None
    if config.client_cert:
        try:
            context.load_cert_chain(config.client_cert, config.client_key, password=_no_passphrase)
        except (OSError, ssl.SSLError, ValueError) as error:
            raise _unreadable(config, "client-cert and client-key", config.client_cert, error) from None
    return context


def _no_passphrase() -> str:
    raise ValueError("the key has a passphrase")


def _read_creds(config: NATSConfig) -> str:
    try:
        with open(config.creds, encoding="utf-8") as file:
            text = file.read()
    except (OSError, ValueError) as error:
        raise _unreadable(config, "creds", config.creds, error) from None
    if "BEGIN NATS USER JWT" not in text or "BEGIN USER NKEY SEED" not in text:
        message = f"{config.url}: the file of creds, {config.creds}, is no credentials file"
        raise StorageError(message, permanent=True, code=CODE)
    return text


def _unreadable(config: NATSConfig, setting: str, name: str, error: Exception) -> StorageError:
    reason = error.strerror if isinstance(error, OSError) and error.strerror else "it is not what it should be"
    if isinstance(error, ssl.SSLError):
        reason = "it holds no certificate, or not the key of it"
    message = f"{config.url}: cannot use the file of {setting}, {name}: {reason}"
    return StorageError(message, permanent=True, code="TLS" if setting != "creds" else CODE)
