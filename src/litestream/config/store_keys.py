"""The keys that say how a replica's store is reached. Each belongs to some types of replica.

They stand in a replica, or at the top of the file as defaults of all replicas whose type has them.
"""

from __future__ import annotations

from litestream.config.key import ALL, Fate, Key, Kind

NETWORK = ("s3", "gs", "abs", "sftp", "webdav", "nats", "oss")
AGE = "age"
MAX_REQUESTS = "max-requests"


def _key(name: str, types: str, note: str, kind: Kind = Kind.TEXT, versions: str = "0.5") -> Key:
    return Key(name, Fate.WORKS, kind, versions, note, types=tuple(types.split()), needs_value=name.startswith("sse"))


STORE_KEYS = (
    # S3; some of them also OSS, GCS, Azure and NATS
    _key("access-key-id", "s3 oss", "half of the credentials; also LITESTREAM_ACCESS_KEY_ID", versions=ALL),
    _key("secret-access-key", "s3 oss", "the other half; also LITESTREAM_SECRET_ACCESS_KEY", versions=ALL),
    _key("session-token", "s3 oss", "the third part of credentials that expire", versions=""),
    _key("region", "s3 oss", "region of the bucket (looked up, else us-east-1)", versions=ALL),
    _key("bucket", "s3 gs abs nats oss", "the bucket; with Azure the container", versions=ALL),
    _key("endpoint", "s3 gs abs oss", "address of a service other than the cloud's own", versions=ALL),
    _key(
        "force-path-style", "s3", "the bucket in the path of requests, not in the host's name (with an endpoint)",
        Kind.FLAG, ALL,
    ),
    _key("skip-verify", "s3", "do not verify the server's certificate (false)", Kind.FLAG, ALL),
    _key("sign-payload", "s3", "sign the content of requests too (true)", Kind.FLAG),
    _key("require-content-md5", "s3", "send a checksum of the content (true)", Kind.FLAG),
    _key("storage-class", "s3", "storage class of what is written"),
    _key("part-size", "s3 oss", "size of the parts of a large upload, as 16MiB", Kind.SIZE),
    _key("concurrency", "s3 oss", "parts of one upload that are under way at once", Kind.COUNT),
    _key("conditional", "s3", "whether the service honours If-None-Match (what is known of it)", Kind.FLAG, ""),
    _key("sse", "s3", "encrypt in the service: AES256, aws:kms or aws:kms:dsse", versions=""),
    _key("sse-customer-algorithm", "s3", "AES256, with a key of yours"),
    _key("sse-customer-key", "s3", "that key, 32 bytes in base64"),
    _key("sse-customer-key-path", "s3", "a file with that key"),
    _key("sse-kms-key-id", "s3", "encrypt with this key of the cloud's key service"),
    # GCS
    _key("credential-path", "gs", "JSON file of a service account (GOOGLE_APPLICATION_CREDENTIALS)", versions=""),
    # Azure
    _key("account-name", "abs", "the storage account", versions=ALL),
    _key("account-key", "abs", "its key; also LITESTREAM_AZURE_ACCOUNT_KEY", versions=ALL),
    _key("sas-token", "abs", "a shared access signature instead; also LITESTREAM_AZURE_SAS_TOKEN"),
    # SFTP
    _key("host", "sftp", "HOST or HOST:PORT", versions=ALL),
    _key("user", "sftp", "the user there", versions=ALL),
    _key("password", "sftp nats", "the user's password", versions=ALL),
    _key("key-path", "sftp", "a file with the private key (an agent's keys)", versions=ALL),
    _key("host-key", "sftp", "the server's public key, as a known_hosts file has it (such a file is asked)"),
    _key("concurrent-writes", "sftp", "send the pieces of a file without waiting for each (true)", Kind.FLAG),
    # WebDAV
    _key("webdav-url", "webdav", "address of the server's directory, http:// or https://"),
    _key("webdav-username", "webdav", "the user there"),
    _key("webdav-password", "webdav", "the user's password"),
    # NATS
    _key("jwt", "nats", "the user's JWT, with `seed`"),
    _key("seed", "nats", "the user's seed"),
    _key("creds", "nats", "a credentials file"),
    _key("nkey", "nats", "the user's public NKey, with `seed`"),
    _key("username", "nats", "the user"),
    _key("token", "nats", "a token instead of user and password"),
    _key("tls", "nats", "use TLS (false)", Kind.FLAG),
    _key("root-cas", "nats", "files with certificates of authorities to trust", Kind.LIST),
    _key("client-cert", "nats", "a file with our certificate"),
    _key("client-key", "nats", "a file with its key"),
    _key("max-reconnects", "nats", "tries to connect again (-1: without end)", Kind.COUNT),
    _key("reconnect-wait", "nats", "time between two of them (2s)", Kind.DURATION),
    # every service
    _key("timeout", " ".join(NETWORK), "longest time without an answer (15s)", Kind.DURATION),
    Key(
        "max-requests", Fate.WORKS, Kind.SECTION, "", "a cap on requests (none)", section=MAX_REQUESTS, types=NETWORK
    ),
    Key(
        "age", Fate.WORKS, Kind.SECTION, "0.3 0.5", "encrypt with age before anything leaves this machine",
        section=AGE, needs_value=True,
    ),
)  # fmt: skip
"""All of them work; the order is that of the documentation."""

BY_NAME = {key.name: key for key in STORE_KEYS}
INSTEAD = {
    ("webdav", "url"): "webdav-url",
    ("webdav", "user"): "webdav-username",
    ("webdav", "username"): "webdav-username",
    ("webdav", "password"): "webdav-password",
    ("webdav", "host"): "webdav-url",
    ("webdav", "endpoint"): "webdav-url",
    ("sftp", "username"): "user",
    ("sftp", "endpoint"): "host",
    ("nats", "user"): "username",
    ("abs", "access-key-id"): "account-name",
    ("abs", "secret-access-key"): "account-key",
}
"""(replica type, key of another type): the key that was probably meant."""
INSIDE = {
    AGE: (
        Key(
            "identities", Fate.WORKS, Kind.LIST, "0.3 0.5", "secret keys (AGE-SECRET-KEY-1…) to read with",
            needs_value=True,
        ),
        Key(
            "recipients", Fate.WORKS, Kind.LIST, "0.3 0.5", "public keys (age1…) for whom everything is encrypted",
            needs_value=True,
        ),
    ),
    MAX_REQUESTS: (
        Key("per-second", Fate.WORKS, Kind.COUNT, "", "requests in one second; more wait"),
        Key("per-month", Fate.WORKS, Kind.COUNT, "", "requests in one calendar month, counted beside the database"),
    ),
}  # fmt: skip


def belongs_elsewhere(key: Key, kind: str) -> str:
    """Why a replica of type `kind` cannot have the key, empty if it can; the rest of a sentence."""
    if not key.types or kind in key.types:
        return ""
    types = ", ".join(key.types) if key.types != NETWORK else "a service"
    meant = INSTEAD.get((kind, key.name), "")
    hint = f'; did you mean "{meant}"?' if meant else ": take it away"
    return f"is a key of {types}, and this replica's type is {kind}{hint}"
