"""Where AWS credentials come from, in which order, and that they are renewed while the program runs."""

from __future__ import annotations

import asyncio
import json
import os
import sys
import time
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from urllib.parse import parse_qs

import pytest

from helpers.netcontract import told
from helpers.s3fake import Asked, Fake, Said, fake
from litestream.errors import StorageError, StoreConfigError
from litestream.storage.protocol import Store
from litestream.storage.s3 import S3Config, aws

SECRETS = ("secret-one", "secret-two", "token-one", "token-two", "AKIAONE", "AKIATWO")


@pytest.fixture(autouse=True)
def _bare(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """No credentials from anywhere, and no metadata service."""
    for name in list(os.environ):
        if name.startswith(("AWS_", "LITESTREAM_")):
            monkeypatch.delenv(name)
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("AWS_EC2_METADATA_DISABLED", "true")


@pytest.fixture
def server() -> Iterator[Fake]:
    """A store that agrees with everything."""
    with fake() as running:
        yield running


def store(server: Fake, **settings: object) -> Store:
    """A replica on it without keys of its own."""
    return S3Config.from_settings({"bucket": "bkt", "endpoint": server.url, **settings}).open()


async def signer(server: Fake, opened: Store) -> tuple[str, str]:
    """The access key and the session token that the store signs with now."""
    await opened.put("a", b"x")
    asked = server.asked[-1]
    key = asked.headers["authorization"].partition("Credential=")[2].partition("/")[0]
    return key, asked.headers.get("x-amz-security-token", "")


def write_profiles(home: Path, credentials: str = "", config: str = "") -> None:
    """The two shared files."""
    (home / ".aws").mkdir(exist_ok=True)
    (home / ".aws" / "credentials").write_text(credentials)
    (home / ".aws" / "config").write_text(config)


async def test_environment(server: Fake, monkeypatch: pytest.MonkeyPatch) -> None:
    """Keys of the environment are used, AWS's variables before the LITESTREAM_ ones, the configuration before both."""
    monkeypatch.setenv("LITESTREAM_ACCESS_KEY_ID", "AKIATWO")
    monkeypatch.setenv("LITESTREAM_SECRET_ACCESS_KEY", "secret-two")
    assert await signer(server, store(server)) == ("AKIATWO", "")
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "AKIAONE")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "secret-one")
    monkeypatch.setenv("AWS_SESSION_TOKEN", "token-one")
    assert await signer(server, store(server)) == ("AKIAONE", "token-one")
    own = {"access_key_id": "AKIAOWN", "secret_access_key": "own"}
    assert await signer(server, store(server, **own)) == ("AKIAOWN", "")


async def test_profile(server: Fake, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """The default profile is used where nothing else is, AWS_PROFILE names another; both files are read."""
    write_profiles(
        tmp_path,
        "[default]\naws_access_key_id = AKIAONE\naws_secret_access_key = secret-one\n"
        "[other]\naws_access_key_id=AKIATWO\naws_secret_access_key=secret-two\naws_session_token=token-two\n",
        "[profile third]\naws_access_key_id = AKIATHREE\naws_secret_access_key = x\nregion = eu-west-1\n",
    )
    assert await signer(server, store(server)) == ("AKIAONE", "")
    monkeypatch.setenv("AWS_PROFILE", "other")
    assert await signer(server, store(server)) == ("AKIATWO", "token-two")
    monkeypatch.setenv("AWS_PROFILE", "third")
    assert await signer(server, store(server)) == ("AKIATHREE", "")


async def test_profile_is_read_again(server: Fake, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Keys that change in the file are used without a restart: in time, or as soon as the service refuses the old."""
    write_profiles(tmp_path, "[default]\naws_access_key_id = AKIAONE\naws_secret_access_key = secret-one\n")
    opened = store(server)
    assert (await signer(server, opened))[0] == "AKIAONE"
    write_profiles(tmp_path, "[default]\naws_access_key_id = AKIATWO\naws_secret_access_key = secret-two\n")
    assert (await signer(server, opened))[0] == "AKIAONE"
    agree = server.answer
    server.answer = lambda asked: Said.error(403, "InvalidAccessKeyId")
    with pytest.raises(StorageError):
        await opened.put("a", b"x")
    server.answer = agree
    assert (await signer(server, opened))[0] == "AKIATWO"
    monkeypatch.setattr(aws, "FILE_LIFE", aws.EARLY - 1)
    opened = store(server)
    assert (await signer(server, opened))[0] == "AKIATWO"
    write_profiles(tmp_path, "[default]\naws_access_key_id = AKIAONE\naws_secret_access_key = secret-one\n")
    assert (await signer(server, opened))[0] == "AKIAONE"


async def test_profile_with_a_program(server: Fake, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A profile that asks a program for keys is boto3's work."""
    script = tmp_path / "keys.py"
    script.write_text(
        "import json\nprint(json.dumps({'Version': 1, 'AccessKeyId': 'AKIAONE', 'SecretAccessKey': 'secret-one',"
        "'SessionToken': 'token-one', 'Expiration': '2099-01-01T00:00:00Z'}))\n"
    )
    write_profiles(tmp_path, config=f"[profile prog]\ncredential_process = {sys.executable} {script}\n")
    monkeypatch.setenv("AWS_PROFILE", "prog")
    assert await signer(server, store(server)) == ("AKIAONE", "token-one")
    script.write_text("import sys\nsys.exit('no, secret-one is not for you')\n")
    with pytest.raises(StorageError, match="no credentials from the AWS profile 'prog'") as caught:
        await store(server).put("a", b"x")
    assert caught.value.code == "NoCredentials"
    assert "\n" not in str(caught.value)


def test_profile_without_boto3(monkeypatch: pytest.MonkeyPatch, tmp_path: Path, server: Fake) -> None:
    """A profile that needs boto3 says what to install where it is missing."""
    write_profiles(tmp_path, config="[profile role]\nrole_arn = arn:aws:iam::1:role/x\nsource_profile = default\n")
    monkeypatch.setenv("AWS_PROFILE", "role")
    monkeypatch.setitem(sys.modules, "boto3", None)
    with pytest.raises(StoreConfigError, match=r'install "litestream\[aws\]"'):
        store(server)


@pytest.mark.parametrize(
    ("files", "text"),
    [
        ("", "there is no AWS profile 'other'"),
        ("[other]\nregion = x\n", "holds no access key"),
        ("[other\nsecret-one", "cannot read .*credentials: MissingSectionHeaderError"),
    ],
)
def test_profile_that_is_wrong(
    server: Fake, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, files: str, text: str
) -> None:
    """A profile that is asked for and cannot be used is a mistake of the configuration, not a reason to look on."""
    write_profiles(tmp_path, files)
    monkeypatch.setenv("AWS_PROFILE", "other")
    with pytest.raises(StoreConfigError, match=text) as caught:
        store(server)
    assert "secret-one" not in told(caught.value)


async def test_no_credentials(server: Fake) -> None:
    """Without any credentials the first operation says what can be set; nothing is sent."""
    opened = store(server)
    for work in (opened.put("a", b"x"), opened.list("")):
        with pytest.raises(StorageError, match="set access-key-id and secret-access-key, or AWS_ACCESS") as caught:
            await work
        assert (caught.value.code, caught.value.permanent) == ("NoCredentials", True)
        assert "\n" not in str(caught.value)
    assert server.asked == []


def moment(seconds: float) -> str:
    """A time from now, as AWS writes it."""
    return datetime.fromtimestamp(time.time() + seconds, UTC).strftime("%Y-%m-%dT%H:%M:%SZ")


class Roles:
    """A metadata service, the container's and STS in one: hands out keys number `number`, good for `seconds`."""

    def __init__(self) -> None:
        self.number = 1
        self.seconds = 3600.0
        self.down = False
        self.asked: list[str] = []

    def keys(self) -> dict[str, str]:
        """As the two metadata services write them."""
        word = ("", "one", "two")[self.number]
        return {
            "AccessKeyId": f"AKIA{word.upper()}",
            "SecretAccessKey": f"secret-{word}",
            "Token": f"token-{word}",
            "Expiration": moment(self.seconds),
        }

    def answer(self, asked: Asked) -> Said:
        """One request."""
        self.asked.append(f"{asked.method} {asked.path}")
        if self.down:
            return Said(503)
        if asked.path == "/latest/api/token":
            good = asked.method == "PUT" and asked.headers.get("x-aws-ec2-metadata-token-ttl-seconds")
            return Said(200, b"imds-token") if good else Said(400)
        if asked.path.startswith("/latest/meta-data/"):
            if asked.headers.get("x-aws-ec2-metadata-token") != "imds-token":
                return Said(401)
            role = asked.path.rpartition("/")[2]
            return Said.json(self.keys()) if role == "my-role" else Said(200, b"my-role\n")
        if asked.path == "/container":
            return Said.json(self.keys()) if asked.headers.get("authorization") == "container-token" else Said(401)
        return self._sts(asked)

    def _sts(self, asked: Asked) -> Said:
        form = {name: values[0] for name, values in parse_qs(asked.body.decode()).items()}
        if asked.method != "POST" or form.get("Action") != "AssumeRoleWithWebIdentity":
            return Said(400)
        if form["WebIdentityToken"] != f"identity-{self.number}":
            return Said.error(400, "InvalidIdentityToken", "secret-one is not in it")
        keys = self.keys()
        fields = "".join(
            f"<{theirs}>{keys[ours]}</{theirs}>"
            for ours, theirs in (
                ("AccessKeyId", "AccessKeyId"),
                ("SecretAccessKey", "SecretAccessKey"),
                ("Token", "SessionToken"),
                ("Expiration", "Expiration"),
            )
        )
        space = "https://sts.amazonaws.com/doc/2011-06-15/"
        return Said(200, f'<R xmlns="{space}"><X><Credentials>{fields}</Credentials></X></R>'.encode())


@pytest.fixture(params=["machine", "container", "web-identity"])
def roles(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[Roles]:
    """The environment of a role, and who hands it out."""
    service = Roles()
    with fake(service.answer) as running:
        if request.param == "machine":
            monkeypatch.delenv("AWS_EC2_METADATA_DISABLED")
            monkeypatch.setenv("AWS_EC2_METADATA_SERVICE_ENDPOINT", running.url)
        elif request.param == "container":
            (tmp_path / "token").write_text("container-token\n")
            monkeypatch.setenv("AWS_CONTAINER_CREDENTIALS_FULL_URI", f"{running.url}/container")
            monkeypatch.setenv("AWS_CONTAINER_AUTHORIZATION_TOKEN_FILE", str(tmp_path / "token"))
        else:
            (tmp_path / "identity").write_text("identity-1")
            monkeypatch.setenv("AWS_WEB_IDENTITY_TOKEN_FILE", str(tmp_path / "identity"))
            monkeypatch.setenv("AWS_ROLE_ARN", "arn:aws:iam::123456789012:role/x")
            monkeypatch.setenv("AWS_ENDPOINT_URL_STS", running.url)
        monkeypatch.setenv("http_proxy", "http://127.0.0.1:1")
        monkeypatch.setenv("no_proxy", "127.0.0.1")
        yield service


async def test_role(server: Fake, roles: Roles) -> None:
    """A role's keys are fetched once, and serve until shortly before their end."""
    opened = store(server)
    assert roles.asked == []
    for _ in range(3):
        assert await signer(server, opened) == ("AKIAONE", "token-one")
    fetched = len(roles.asked)
    assert fetched <= 3
    await opened.list("")
    assert len(roles.asked) == fetched


async def test_role_is_renewed(server: Fake, roles: Roles, tmp_path: Path) -> None:
    """Keys that end soon are fetched anew, from a token that was exchanged meanwhile, without a restart."""
    roles.seconds = aws.EARLY - 10
    opened = store(server)
    assert await signer(server, opened) == ("AKIAONE", "token-one")
    roles.number = 2
    (tmp_path / "identity").write_text("identity-2")
    assert await signer(server, opened) == ("AKIATWO", "token-two")


async def test_role_that_cannot_be_renewed(server: Fake, roles: Roles) -> None:
    """As long as old keys hold they are used, whatever the service says; after that there are none."""
    roles.seconds = 2.0
    opened = store(server)
    await opened.put("a", b"x")
    roles.down = True
    assert (await signer(server, opened))[0] == "AKIAONE"
    await asyncio.sleep(2.1)
    with pytest.raises(StorageError) as caught:
        await opened.put("a", b"x")
    assert (caught.value.code, caught.value.permanent) == ("NoCredentials", False)
    roles.down = False
    assert (await signer(server, opened))[0] == "AKIAONE"


async def test_role_without_keys(server: Fake, roles: Roles) -> None:
    """A service that hands out nothing useful is an error that passes, says who failed, and shows no secret."""
    roles.keys = lambda: {"AccessKeyId": "", "SecretAccessKey": "secret-one"}  # type: ignore[method-assign]
    with pytest.raises(StorageError) as caught:
        await store(server).put("a", b"x")
    assert caught.value.code == "NoCredentials"
    assert "\n" not in str(caught.value)
    assert not any(secret in told(caught.value) for secret in SECRETS)


async def test_refused_identity(server: Fake, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """A token that STS refuses is a permanent error with STS's word for it; an absent file one that may pass."""
    service = Roles()
    monkeypatch.setenv("AWS_WEB_IDENTITY_TOKEN_FILE", str(tmp_path / "identity"))
    monkeypatch.setenv("AWS_ROLE_ARN", "arn:aws:iam::123456789012:role/x")
    with fake(service.answer) as running:
        monkeypatch.setenv("AWS_ENDPOINT_URL_STS", running.url)
        with pytest.raises(StorageError, match="cannot be read") as caught:
            await store(server).put("a", b"x")
        assert not caught.value.permanent
        (tmp_path / "identity").write_text("wrong-identity")
        with pytest.raises(StorageError, match="InvalidIdentityToken: check the role's trust policy") as caught:
            await store(server).put("a", b"x")
    assert caught.value.permanent
    assert "wrong-identity" not in told(caught.value)
    assert "secret-one" not in told(caught.value)


async def test_container_address(server: Fake, monkeypatch: pytest.MonkeyPatch) -> None:
    """A token is never sent in plain to a host that is not this machine's."""
    monkeypatch.setenv("AWS_CONTAINER_CREDENTIALS_FULL_URI", "http://192.0.2.1/container")
    monkeypatch.setenv("AWS_CONTAINER_AUTHORIZATION_TOKEN", "container-token")
    with pytest.raises(StorageError, match="neither https nor local") as caught:
        await store(server).put("a", b"x")
    assert caught.value.permanent


def test_sources_show_nothing() -> None:
    """Credentials and their sources have no secret in their repr."""
    held = aws.Credentials("AKIAONE", "secret-one", "token-one", 1.0)
    text = repr(held) + repr(aws.static(held, "here")) + json.dumps(str(held))
    assert not any(secret in text for secret in SECRETS)
