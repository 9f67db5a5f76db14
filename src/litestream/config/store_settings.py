"""How a store is reached: the values of the keys in `store_keys`, in a replica and as defaults for all of them."""

from __future__ import annotations

from typing import Annotated, Any

from litestream.config.model import Check, Model, SecretStr
from litestream.config.paths import absolute_path
from litestream.config.store_keys import AGE, BY_NAME, MAX_REQUESTS
from litestream.config.values import (
    Address,
    File,
    Flag,
    NeededFile,
    NeededSecret,
    NeededText,
    Seconds,
    Secret,
    Size,
    SomeCount,
    SomeSeconds,
    Text,
    Tries,
    path_by,
)

OURS = frozenset({"timeout", MAX_REQUESTS, AGE})
"""What the wrappers around a store take, and not the store (NATS has `timeout` too)."""


class SettingError(ValueError):
    """A key that does not go with the others. `key` is its place in the replica, dots between parts."""

    def __init__(self, key: str, text: str) -> None:
        super().__init__(text)
        self.key = key


def _texts(value: object) -> object:
    """A tuple of texts; each in a wrapper that hides it is another type's business."""
    if isinstance(value, str) or not isinstance(value, (list, tuple)):
        raise ValueError("must be a list")  # noqa: TRY004 - a model collects ValueError
    if not value:
        raise ValueError("is empty: give it a value, or take it away")
    return tuple(value)


Texts = Annotated[tuple[str, ...], Check(_texts)]
Secrets = Annotated[tuple[SecretStr, ...], Check(_texts)]


class AgeConfig(Model):
    """`age:`. Both empty is an error where the keys are read."""

    identities: Secrets = ()
    recipients: Texts = ()

    def _after(self) -> None:
        if not self.identities and not self.recipients:
            raise SettingError("", "needs recipients, and identities to read: nothing is stored unencrypted")

    def keys(self) -> dict[str, tuple[str, ...]]:
        """What `litestream.storage.open_store` takes: identities in clear."""
        return {
            "recipients": self.recipients,
            "identities": tuple(identity.get_secret_value() for identity in self.identities),
        }


class MaxRequests(Model):
    """`max-requests:`; None: no cap."""

    per_second: SomeCount | None = None
    per_month: SomeCount | None = None


class StoreSettings(Model):
    """The values of `store_keys`; None where not given."""

    access_key_id: Secret = None
    secret_access_key: Secret = None
    session_token: Secret = None
    region: Text = None
    bucket: Text = None
    endpoint: Address = None
    force_path_style: Flag | None = None
    skip_verify: Flag | None = None
    sign_payload: Flag | None = None
    require_content_md5: Flag | None = None
    storage_class: Text = None
    part_size: Size | None = None
    concurrency: SomeCount | None = None
    conditional: Flag | None = None
    sse: NeededText = None
    sse_customer_algorithm: NeededText = None
    sse_customer_key: NeededSecret = None
    sse_customer_key_path: NeededFile = None
    sse_kms_key_id: NeededText = None
    credential_path: File = None
    account_name: Text = None
    account_key: Secret = None
    sas_token: Secret = None
    host: Text = None
    user: Text = None
    password: Secret = None
    key_path: File = None
    host_key: Text = None
    concurrent_writes: Flag | None = None
    webdav_url: Secret = None
    webdav_username: Text = None
    webdav_password: Secret = None
    jwt: Secret = None
    seed: Secret = None
    creds: File = None
    nkey: Secret = None
    username: Text = None
    token: Secret = None
    tls: Flag | None = None
    root_cas: Annotated[tuple[Annotated[str, path_by(absolute_path)], ...], Check(_texts)] | None = None
    client_cert: File = None
    client_key: File = None
    max_reconnects: Tries | None = None
    reconnect_wait: Seconds | None = None
    timeout: SomeSeconds | None = None
    max_requests: MaxRequests | None = None
    age: AgeConfig | None = None

    def plain(self, kind: str) -> dict[str, Any]:
        """What a store of that type is given: snake_case names, secrets in clear, nothing that is not set."""
        result: dict[str, Any] = {}
        for name in BY_NAME:
            value = getattr(self, name.replace("-", "_"))
            if value is None or (name in OURS and not (kind == "nats" and name == "timeout")):
                continue
            result[name.replace("-", "_")] = value.get_secret_value() if isinstance(value, SecretStr) else value
        return result
