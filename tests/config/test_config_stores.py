"""The keys of stores: each type of replica takes its own, from itself, from the top of the file, or not at all."""

from __future__ import annotations

import json
import logging
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from litestream.config import Config, ReplicaConfig, for_command_line, loads
from litestream.config.defaults import said_by_url
from litestream.config.key import Kind
from litestream.config.store_keys import BY_NAME, NETWORK, STORE_KEYS
from litestream.errors import ConfigError
from litestream.storage import VISIBLE, shows_secret
from litestream.storage.backends import BACKENDS

Values = dict[str, Any]

BASE: dict[str, Values] = {
    "file": {"path": "/b"},
    "s3": {"bucket": "bucket"},
    "gs": {"bucket": "bucket"},
    "abs": {"bucket": "container", "account-name": "account"},
    "sftp": {"host": "host.example:2222", "user": "me", "path": "/r"},
    "webdav": {"webdav-url": "https://dav.example/r"},
    "nats": {"url": "nats://nats.example:4222/bucket"},
    "oss": {"bucket": "bucket", "region": "cn-hangzhou", "access-key-id": "id", "secret-access-key": "kept-secret"},
}
"""The least that a replica of each type has."""
HUSH = "hush-hush"
RECIPIENT = "age1gqhz4zdmkddhke65wq2p6c4lpg0naw7vxlypj0aarvfadej8pvfqh2crw6"
IDENTITY = "AGE-SECRET-KEY-1UU59HTWUXZVRAHT8WJFVW66DHFTT3FXGXDXSZX57AKAER5ZZCMDSJZY8W6"
"""Made for these tests; the recipient is that of the identity."""
CUSTOMER_KEY = "aHVzaC1odXNoLWh1c2gtaHVzaC1odXNoLWh1c2gtaHU="
SAMPLES: dict[str, Any] = {
    "endpoint": "https://store.example",
    "region": "eu-west-9",
    "bucket": "another-bucket",
    "part-size": "16MiB",
    "concurrency": 3,
    "sse": "AES256",
    "sse-customer-algorithm": "AES256",
    "sse-customer-key": CUSTOMER_KEY,
    "account-name": "other",
    "account-key": "aHVzaC1odXNo",
    "sas-token": "sv=2021-12-02&sp=rwdl&sig=hush-hush",
    "webdav-url": "https://other.example/r",
    "max-reconnects": 3,
    "timeout": "7s",
    "reconnect-wait": "3s",
    "max-requests": {"per-second": 5, "per-month": 1000},
    "age": {"recipients": [RECIPIENT], "identities": [IDENTITY]},
}
TOGETHER: dict[str, Values] = {
    "access-key-id": {"secret-access-key": HUSH},
    "secret-access-key": {"access-key-id": HUSH},
    "session-token": {"access-key-id": HUSH, "secret-access-key": HUSH},
    "sse-customer-algorithm": {"sse-customer-key": CUSTOMER_KEY},
    "jwt": {"seed": HUSH},
    "nkey": {"seed": HUSH},
    "seed": {"jwt": HUSH},
    "username": {"password": HUSH},
    "client-cert": {"client-key": "/k"},
    "client-key": {"client-cert": "/k"},
}
"""What a key is nothing without."""
PAIRS = [(kind, key.name) for kind in BASE for key in STORE_KEYS if not key.types or kind in key.types]
FOREIGN = [(kind, key.name) for kind in BASE for key in STORE_KEYS if key.types and kind not in key.types]


@pytest.fixture(scope="module")
def key_file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A file to name where a key names a file."""
    path = tmp_path_factory.mktemp("keys") / "key"
    path.write_text(CUSTOMER_KEY)
    return path


@pytest.fixture(autouse=True)
def no_credentials(monkeypatch: pytest.MonkeyPatch) -> None:
    """The tests' own environment has no say."""
    for name in ("AWS_ENDPOINT_URL", "AWS_ENDPOINT_URL_S3", "LITESTREAM_S3_ENDPOINT", "AZURE_STORAGE_ACCOUNT"):
        monkeypatch.delenv(name, raising=False)


def sample(name: str, key_file: Path) -> Any:  # noqa: ANN401 - text, number or section
    """A good value for a key."""
    key = BY_NAME[name]
    if name in {"key-path", "credential-path", "creds", "client-cert", "client-key", "sse-customer-key-path"}:
        return str(key_file)
    if name == "root-cas":
        return [str(key_file)]
    return SAMPLES.get(name, True if key.kind is Kind.FLAG else HUSH)


def with_key(kind: str, name: str, key_file: Path) -> tuple[Values, Values]:
    """A replica of that type, and the key with what belongs to it."""
    keys = {name: sample(name, key_file), **TOGETHER.get(name, {})}
    if (kind, name) == ("nats", "password"):
        keys["username"] = "me"
    base = {"type": kind, **BASE[kind]}
    if kind == "nats" and name == "bucket":
        base = {"type": kind}
    return {other: value for other, value in base.items() if other not in keys}, keys


def text(*replicas: Values, **top: Any) -> str:  # noqa: ANN401 - any YAML
    """A file with one database."""
    named = [{"name": f"r{number}", **replica} for number, replica in enumerate(replicas)]
    return json.dumps({**top, "dbs": [{"path": "/a.db", "replicas": named}]})


def read(*replicas: Values, **top: Any) -> Config:  # noqa: ANN401 - any YAML
    """The same, loaded."""
    return loads(text(*replicas, **top), name="f", expand_env=False)


def refused(*replicas: Values, **top: Any) -> str:  # noqa: ANN401 - any YAML
    """The error of the same."""
    with pytest.raises(ConfigError) as caught:
        read(*replicas, **top)
    return str(caught.value)


def shown(name: str, key_file: Path) -> Any:  # noqa: ANN401 - any plain value
    """What a back end is given for the sample."""
    value = sample(name, key_file)
    plain = {"part-size": 16 << 20, "timeout": 7.0, "reconnect-wait": 3.0}
    return tuple(value) if isinstance(value, list) else plain.get(name, value)


@pytest.mark.parametrize(("kind", "name"), PAIRS, ids=str)
def test_each_key_of_each_type(kind: str, name: str, key_file: Path) -> None:
    """A key reaches the back end of its types, with the value as plain Python, and without a warning."""
    base, keys = with_key(kind, name, key_file)
    config = read({**base, **keys})
    assert config.warnings == ()
    (replica,) = config.databases[0].replicas
    assert replica.type == kind
    if name not in {"timeout", "max-requests", "age"}:
        field = name.replace("-", "_")
        assert replica.store_settings()[field] == shown(name, key_file)
        if name != "sse-customer-algorithm" and name != "sse-customer-key-path":
            backend: Any = replica.backend
            # An oss replica is one of S3 inside.
            found = getattr(backend, field) if hasattr(backend, field) else getattr(backend.s3, field)
            assert found == shown(name, key_file)


@pytest.mark.parametrize(
    ("kind", "name"), [pair for pair in PAIRS if pair[1] not in {"bucket", "host", "user", "webdav-url"}]
)
def test_each_key_as_a_default(kind: str, name: str, key_file: Path) -> None:
    """The same key at the top of the file is as good as in the replica, and reaches no replica of another type."""
    base, keys = with_key(kind, name, key_file)
    direct = read({**base, **keys}).databases[0].replicas[0]
    config = read(base, {"path": "/elsewhere"}, **keys)
    replica, other = config.databases[0].replicas
    if (kind, name) == ("gs", "endpoint"):
        assert replica.endpoint is None, "Google's tokens are for nobody else"
        assert "has no effect: it is for replicas of type s3, abs, oss" in config.warnings[0]
        return
    assert config.warnings == ()
    assert replica == direct
    assert other.given().keys() - {"age"} == ReplicaConfig(path="/x", name="n").given().keys()


@pytest.mark.parametrize(("kind", "name"), FOREIGN, ids=str)
def test_each_key_of_another_type(kind: str, name: str, key_file: Path) -> None:
    """A key of another type is an error that says of which; as a default it is left out."""
    keys = {name: sample(name, key_file)}
    message = refused({"type": kind, **BASE[kind], **keys})
    assert message.startswith(f"f:1: dbs[0].replicas[0].{name}: is a key of ")
    assert f"this replica's type is {kind}" in message
    assert "hush" not in message
    replica = read({"type": kind, **BASE[kind]}, {"path": "/elsewhere"}, **keys).databases[0].replicas[0]
    assert getattr(replica, name.replace("-", "_")) is None


@pytest.mark.parametrize("kind", NETWORK)
def test_the_table_has_what_the_back_end_has(kind: str) -> None:
    """No setting of a back end lacks a key, and no key is one that its back end does not know."""
    names = set(BACKENDS[kind].config_class().__dataclass_fields__)
    inside = set(BACKENDS["s3"].config_class().__dataclass_fields__) if "s3" in names else set()
    fields = {name.replace("_", "-") for name in names - {"s3"}}
    keys = {key.name for key in STORE_KEYS if kind in key.types}
    ours = {"timeout", "max-requests"} - ({"timeout"} if kind == "nats" else set())
    gone = {"sse-customer-algorithm", "sse-customer-key-path"}
    """Checked, and then part of another field."""
    assert fields - {"path", "url", "servers", "emulator"} <= keys
    assert keys - ours - gone <= fields | {name.replace("_", "-") for name in inside} | {"url"}


@pytest.mark.parametrize(
    ("replica", "where", "why"),
    [
        ({"type": "s3", "url": "s3://bucket", "path": "x"}, "path", "cannot specify url & path for s3 replica"),
        ({"url": "s3://bucket/x", "bucket": "b"}, "bucket", "cannot specify url & bucket for s3 replica"),
        ({"url": "gcs://bucket/x", "bucket": "b"}, "bucket", "cannot specify url & bucket for gs replica"),
        ({"url": "abs://a@bucket/x", "bucket": "b"}, "bucket", "cannot specify url & bucket for abs replica"),
        ({"url": "sftp://me@h/x", "host": "h"}, "host", "cannot specify url & host for sftp replica"),
        ({"url": "nats://h/x", "bucket": "b"}, "bucket", "cannot specify url & bucket for nats replica"),
        ({"type": "nats"}, "bucket", "bucket required for nats replica"),
        ({"type": "s3"}, "bucket", "bucket required for s3 replica"),
        ({"type": "gs", "path": "x"}, "bucket", "bucket required for gs replica"),
        ({"type": "abs", "bucket": ""}, "bucket", "bucket required for abs replica"),
        ({"type": "sftp", "user": "me"}, "host", "host required for sftp replica"),
        ({"type": "sftp", "host": "h"}, "user", "user required for sftp replica"),
        ({"type": "webdav"}, "webdav-url", "webdav-url required for webdav replica"),
        (
            {"type": "s3", "bucket": "bucket", "path": "s3://key:hush@b/p"},
            "path",
            "replica path cannot be a url, please use the 'url' field instead",
        ),
        ({"type": "s3", "bucket": "bucket", "path": "a/../b"}, "path", "path must have no empty, '.' or '..' parts"),
        ({"type": "s3", "bucket": "bucket", "timeout": "0s"}, "timeout", "must be greater than 0"),
        ({"type": "s3", "bucket": "bucket", "part-size": "1M"}, "part-size", "part-size must be between 5MiB and 1GiB"),
        ({"type": "s3", "bucket": "bucket", "part-size": "hush"}, "part-size", "must be a size such as 16MiB"),
        ({"type": "s3", "bucket": "bucket", "skip-verify": "hush"}, "skip-verify", "must be true or false"),
        ({"type": "s3", "bucket": "bucket", "concurrency": 0}, "concurrency", "must be > 0"),
        (
            {"type": "s3", "bucket": "bucket", "sse-kms-key-id": ""},
            "sse-kms-key-id",
            "is empty: give it a value, or take it away",
        ),
        ({"type": "s3", "bucket": "bucket", "sse": None}, "sse", "is empty: give it a value, or take it away"),
        (
            {"type": "s3", "bucket": "bucket", "endpoint": "http://me:hush@h"},
            "endpoint",
            "takes no user, password or query: they have keys of their own",
        ),
        (
            {"type": "s3", "bucket": "bucket", "sse-customer-key": "hush"},
            "sse-customer-key",
            "sse-customer-key must be 32 bytes in base64",
        ),
        (
            {"type": "abs", "bucket": "container", "account-name": "account", "account-key": "hush!"},
            "account-key",
            "account-key is not base64: copy it whole, with its = signs",
        ),
        ({"type": "s3", "bucket": "bucket", "max-requests": {"per-month": 0}}, "max-requests.per-month", "must be > 0"),
        (
            {"type": "s3", "bucket": "bucket", "access-key-id": "hush"},
            "secret-access-key",
            "secret-access-key is missing: the two keys belong together",
        ),
    ],
)  # fmt: skip
def test_replicas_that_cannot_be(replica: Values, where: str, why: str) -> None:
    """Each mistake is told at the key, in the official words where there are any, and without a secret."""
    message = refused(replica)
    assert message == f"f:1: dbs[0].replicas[0].{where}: {why}"


@pytest.mark.parametrize("value", [{}, None, {"recipients": []}, {"recipients": None}, {"recipient": "x"}, ["x"], "x"])
@pytest.mark.parametrize("where", ["top", "replica"])
def test_encryption_is_never_ignored(where: str, value: object) -> None:
    """Whatever stands behind `age` that names nobody is an error: nothing is replicated in plain."""
    message = refused({"path": "/b"}, age=value) if where == "top" else refused({"path": "/b", "age": value})
    assert "age" in message.partition(": ")[2].partition(": ")[0]


def test_encryption_keys_are_checked_when_the_file_is_read() -> None:
    """A misspelt key is told at its place, the entry by its number, never by its text."""
    message = refused({"path": "/b", "age": {"recipients": [RECIPIENT, RECIPIENT[:-1] + "x"]}})
    assert message.startswith("f:1: dbs[0].replicas[0].age.recipients: entry 2 of age.recipients ")
    assert RECIPIENT[:-1] not in message
    message = refused({"path": "/b", "age": {"identities": [IDENTITY[:-1] + "X"]}})
    assert "dbs[0].replicas[0].age.identities: entry 1 of age.identities " in message
    assert IDENTITY[:-1] not in message


def test_a_replica_may_have_other_recipients() -> None:
    """`age` of a replica takes the place of the one at the top, as a whole."""
    config = read(
        {"path": "/b"},
        {"path": "/c", "age": {"recipients": [RECIPIENT]}},
        age={"recipients": [RECIPIENT], "identities": [IDENTITY]},
    )
    assert [replica.age.keys() for replica in config.databases[0].replicas if replica.age] == [
        {"recipients": (RECIPIENT,), "identities": (IDENTITY,)},
        {"recipients": (RECIPIENT,), "identities": ()},
    ]


def test_limits() -> None:
    """timeout and max-requests become limits; a replica's cap beats the default, number by number."""
    top: Values = {"max-requests": {"per-second": 5, "per-month": 1000}, "timeout": "40s"}
    config = read({"type": "s3", **BASE["s3"], "max-requests": {"per-second": 9}}, {**BASE["file"], "name": "f"}, **top)
    limits = config.databases[0].replicas[0].limits()
    assert (limits.timeout, limits.requests_per_second, limits.requests_per_month) == (40, 9, 1000)
    assert read({"type": "s3", **BASE["s3"]}).databases[0].replicas[0].limits().timeout == 15


@pytest.mark.parametrize(
    ("url", "kind", "said"),
    [
        ("s3://bucket/x", "s3", set()),
        ("s3://bucket.localhost:9000/x", "s3", {"endpoint", "region"}),
        ("s3://bucket.s3.us-west-2.amazonaws.com/x", "s3", {"endpoint", "region"}),
        ("s3://bucket/x?forcePathStyle=true&region=r", "s3", {"force-path-style", "region"}),
        ("s3://bucket/x?part-size=5MB", "s3", {"part-size"}),
        ("oss://bucket.oss-cn-hangzhou.aliyuncs.com/x", "oss", {"endpoint", "region"}),
        ("sftp://host/x", "sftp", set()),
        ("sftp://me:hush@host/x", "sftp", {"user", "password"}),
        ("abs://account@container/x", "abs", {"account-name"}),
        ("nats://token@host/bucket", "nats", {"token", "username"}),
        ("/plain/path", "file", set()),
        ("s3://[broken", "s3", set()),
    ],
)
def test_what_a_url_says(url: str, kind: str, said: set[str]) -> None:
    """A default of the file does not replace what stands in a URL."""
    found = said_by_url(url, kind)
    assert said <= found
    assert not found & {"secret-access-key", "account-key", "timeout", "age", "max-requests"}
    assert not found & ({"endpoint", "region", "part-size", "force-path-style"} - said)
    assert ("user" in found) == ("@" in url)


def test_defaults_give_way_to_the_url() -> None:
    """A URL with an endpoint or options of its own keeps them; credentials still come from the top."""
    config = read(
        {"url": "s3://bucket/x"},
        {"url": "s3://bucket.localhost:9001/x"},
        {"url": "s3://bucket/x?region=mine&endpoint=http://127.0.0.1:1"},
        region="theirs",
        endpoint="http://127.0.0.1:9000",
        **{"access-key-id": "id", "secret-access-key": HUSH, "bucket": "never", "force-path-style": "yes"},
    )
    backends: list[Any] = [replica.backend for replica in config.databases[0].replicas]
    assert [(b.bucket, b.region, b.endpoint, b.secret_access_key, b.force_path_style) for b in backends] == [
        ("bucket", "theirs", "http://127.0.0.1:9000", HUSH, True),
        ("bucket", "us-east-1", "http://localhost:9001", HUSH, True),
        ("bucket", "mine", "http://127.0.0.1:1", HUSH, True),
    ]


def test_empty_text_is_as_good_as_none() -> None:
    """What an unset variable leaves behind lets the default count, or the environment."""
    top = {"access-key-id": "id", "secret-access-key": HUSH}
    (replica,) = read({**BASE["s3"], "type": "s3", "access-key-id": "", "region": ""}, **top).databases[0].replicas
    assert replica.access_key_id is not None
    assert replica.region is None


def test_defaults_for_nobody_are_remarked_on() -> None:
    """A default that no replica has is warned about, since what it asks for is not done; a file without databases is
    one of defaults only."""
    top = {"sse": "AES256", "region": "r", "timeout": "3s"}
    assert read({"path": "/b"}, **top).warnings == (
        "f:1: region: has no effect: it is for replicas of type s3, oss, and there is none here",
        "f:1: sse: has no effect: it is for replicas of type s3, and there is none here",
        "f:1: timeout: has no effect: it is for replicas at a service, and there is none here",
    )
    assert loads(json.dumps(top)).warnings == ()


def test_a_wrong_default_is_told_at_its_place() -> None:
    """A value at the top that only the back end finds wrong has its line there, once."""
    config = (
        "part-size: 1KB\ndbs:\n- path: /a\n  replicas:\n  - {type: s3, bucket: bucket}\n  - {type: s3, bucket: two}"
    )
    with pytest.raises(ConfigError) as caught:
        loads(config, name="f")
    assert str(caught.value) == "f:1: part-size: part-size must be between 5MiB and 1GiB"


def test_values_of_the_environment_stay_hidden() -> None:
    """A back end's words do not show what a variable held."""
    config = "dbs: [{path: /a, replica: {type: s3, bucket: $B}}]"
    with pytest.raises(ConfigError) as caught:
        loads(config, name="f", environ={"B": "hunter2!"})
    assert "hunter2" not in str(caught.value)
    assert str(caught.value).startswith("f:1: dbs[0].replica.bucket: is not valid")


@pytest.mark.parametrize(
    ("first", "second", "same"),
    [
        ({"url": "s3://bucket/x"}, {"type": "s3", "bucket": "bucket", "path": "/x/"}, True),
        ({"url": "s3://bucket/x"}, {"url": "s3://bucket/y"}, False),
        ({"url": "s3://bucket/x"}, {"url": "s3://bucket/x?endpoint=http://127.0.0.1:1"}, False),
        ({"url": "s3://bucket/x"}, {"path": "/x"}, False),
        ({"url": "abs://account@container/x"}, {"url": "abs://another@container/x"}, False),
    ],
)
def test_one_place_for_one_replica(first: Values, second: Values, same: bool) -> None:
    """Two replicas never share a place, however it is written."""
    if not same:
        assert len(read(first, second).databases[0].replicas) == 2
        return
    why = "dbs[0].replicas[1]: the same place as dbs[0].replicas[0]: each replica needs one of its own"
    assert refused(first, second) == f"f:1: {why}"


def test_labels_on_the_command_line() -> None:
    """Several URLs of one type are told apart by number."""
    config = for_command_line("a.db", ["s3://bucket/x", "/r", "s3://bucket/y", "abs://account@container/x"])
    assert [replica.label for replica in config.databases[0].replicas] == ["s3", "file", "s3-2", "abs"]
    assert [replica.location for replica in config.databases[0].replicas][2:] == [
        "s3://bucket/y", "abs://account@container/x",
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("url", "shows"),
    [
        ("s3://bucket/a:b@c", False),
        ("sftp://me@host/x", False),
        ("sftp://me:hush@host/x", True),
        ("nats://token@host/bucket", True),
        ("nats://host/bucket", False),
        ("abs://account@container/x", False),
        ("abs://account@container/x?sig=hush", True),
        ("s3://bucket/x?secret-access-key=hush", True),
        ("/a:b@c", False),
    ],
)
def test_urls_that_show_a_secret(url: str, shows: bool) -> None:
    """A password in a URL is noticed, wherever a URL may hold one."""
    assert shows_secret(url) == shows


def test_a_secret_on_the_command_line_is_warned_about() -> None:
    """`replicate DB URL` says once that everybody can see it, and does not repeat it."""
    config = for_command_line("a.db", ["/r", "sftp://me:hush@host/x"])
    assert config.warnings == (f"replica URL 2: {VISIBLE}",)
    assert "hush" not in repr(config)


def secrets() -> Iterator[str]:
    """Every text that must not be shown."""
    yield from (HUSH, "kept-secret", CUSTOMER_KEY, IDENTITY, SAMPLES["account-key"], SAMPLES["sas-token"])


@pytest.mark.parametrize("kind", BASE)
def test_no_secret_is_ever_shown(kind: str, key_file: Path, caplog: pytest.LogCaptureFixture) -> None:
    """repr, str, dump, JSON and log lines of a configuration have asterisks, or nothing, in place of a secret."""
    secret = {"access-key-id", "secret-access-key", "session-token", "sse-customer-key", "account-key", "sas-token"}
    secret |= {"password", "webdav-password", "jwt", "seed", "nkey", "token", "age"}
    for name in sorted(name for of, name in PAIRS if of == kind and name in secret):
        base, keys = with_key(kind, name, key_file)
        config = read({**base, **keys})
        logging.getLogger("litestream").warning("%r", config)
        (replica,) = config.databases[0].replicas
        texts = [repr(config), str(config), str(config.model_dump()), repr(config.model_dump()), replica.location]
        texts += [repr(replica.backend), caplog.text, repr(config.defaults.model_dump())]
        for hidden in secrets():
            assert not [shown for shown in texts if hidden in shown], name
            assert hidden not in repr(read({**base}, **keys).defaults)


VALUE = st.one_of(
    st.none(),
    st.text(max_size=8),
    st.integers(-3, 1 << 40),
    st.booleans(),
    st.sampled_from([HUSH, "", "5s", "16MiB", "s3://b", "https://me:hush@h", "a/../b", "\0", "$X"]),
    st.lists(st.text(max_size=3), max_size=2),
    st.dictionaries(st.sampled_from(["per-month", "recipients", "x"]), st.one_of(st.integers(), st.text(max_size=3))),
)
NAMES = st.sampled_from([*BY_NAME, "type", "url", "path", "name", "sync-interval", "retention", "kee", "secret"])


@settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    kind=st.sampled_from([*BASE, "gcs", "webdavs", "s4", None]),
    replica=st.dictionaries(NAMES, VALUE, max_size=5),
    top=st.dictionaries(NAMES, VALUE, max_size=3),
)
def test_no_file_is_a_surprise(kind: str | None, replica: Values, top: Values) -> None:
    """Any keys with any values are a configuration, or a `ConfigError` whose lines hold no value of a secret."""
    base = {} if kind is None else {"type": kind, **BASE.get(kind, {})}
    try:
        loads(json.dumps({**top, "dbs": [{"path": "/a", "replicas": [{**base, **replica}]}]}), environ={})
        message = "litestream.yml:"
    except ConfigError as error:
        message = str(error)
    assert all(line.startswith("litestream.yml:") for line in message.split("\n"))
    durations = {"sync-interval", "retention", "timeout", "reconnect-wait"}  # their texts are repeated
    if "hush" not in str([values.get(name) for values in (replica, top) for name in durations]):
        assert "hush" not in message


@pytest.mark.parametrize("kind", [kind for kind in NETWORK if BACKENDS[kind].library])
def test_a_missing_package_does_not_matter_to_the_file(kind: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """A file is checked without the library of a replica; opening the replica says what to install."""
    library, extra = BACKENDS[kind].library, BACKENDS[kind].extra
    for module in [name for name in sys.modules if name.partition(".")[0] == library]:
        monkeypatch.delitem(sys.modules, module)
    monkeypatch.setitem(sys.modules, library, None)
    (replica,) = read({"type": kind, **BASE[kind]}).databases[0].replicas
    package = f"litestream[{extra}]" if extra else library
    with pytest.raises(ConfigError) as caught:
        replica.open()
    assert str(caught.value) == f'replica type {kind} needs an extra package: install "{package}"'
