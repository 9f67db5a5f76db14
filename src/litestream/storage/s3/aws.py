"""Where AWS credentials come from: settings, environment, profiles, roles. All are renewed without a restart.

The order is that of AWS's own libraries: keys of the configuration, of the environment, a web identity, the shared
files, the container's role, the machine's role. The plain case of the shared files is read here; profiles that need
single sign-on, another role or a program are boto3's work (the extra `aws`).
"""

from __future__ import annotations

import asyncio
import configparser
import os
import time
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import TYPE_CHECKING

from litestream.errors import StorageError, StoreConfigError

if TYPE_CHECKING:
    from obstore.store import S3Credential

FILE_LIFE = 600.0
"""Seconds for which keys from a file hold before it is read again."""
EARLY = 300.0
"""Seconds before their end at which credentials are renewed."""
_NEEDS_BOTO3 = ("role_arn", "sso_session", "sso_start_url", "credential_process", "credential_source", "login_session")


@dataclass(frozen=True, slots=True)
class Credentials:
    """Keys; `expires` is in Unix seconds, None for never."""

    access_key_id: str = field(repr=False)
    secret_access_key: str = field(repr=False)
    session_token: str = field(default="", repr=False)
    expires: float | None = None

    def keys(self) -> tuple[str, str, str]:
        """What requests are signed with."""
        return self.access_key_id, self.secret_access_key, self.session_token


Fetch = Callable[[], Awaitable[Credentials]]


class CredentialSource:
    """Credentials that are fetched when needed and renewed before they end; one fetch at a time.

    `name` says where they come from, for people.
    """

    def __init__(self, name: str, fetch: Fetch) -> None:
        self.name = name
        self._fetch = fetch
        self._fetching = asyncio.Lock()
        self._held: Credentials | None = None

    def __repr__(self) -> str:
        return f"CredentialSource({self.name!r})"

    async def get(self) -> Credentials:
        """Credentials that hold for now. `StorageError` if there are none; old ones serve as long as they hold."""
        async with self._fetching:
            held = self._held
            if held is None or (held.expires is not None and held.expires - EARLY < time.time()):
                try:
                    self._held = await self._fetch()
                except StorageError:
                    if held is None or held.expires is None or held.expires <= time.time():
                        raise
            assert self._held is not None
            return self._held

    def forget(self) -> None:
        """Fetch anew next time: a service has refused what is held."""
        self._held = None

    async def provide(self) -> S3Credential:
        """The same in obstore's form, for its credential provider."""
        held = await self.get()
        return {
            "access_key_id": held.access_key_id,
            "secret_access_key": held.secret_access_key,
            "token": held.session_token or None,
            # A little earlier, or obstore would sign with them to the last second.
            "expires_at": None if held.expires is None else datetime.fromtimestamp(held.expires - EARLY / 5, UTC),
        }


def static(credentials: Credentials, name: str) -> CredentialSource:
    """Keys that are given and do not change."""

    async def fetch() -> Credentials:
        return credentials

    return CredentialSource(name, fetch)


def from_environment(env: Mapping[str, str]) -> Credentials | None:
    """Keys of the environment: AWS's own variables first, then the LITESTREAM_ ones."""
    key = env.get("AWS_ACCESS_KEY_ID") or env.get("LITESTREAM_ACCESS_KEY_ID") or ""
    secret = env.get("AWS_SECRET_ACCESS_KEY") or env.get("LITESTREAM_SECRET_ACCESS_KEY") or ""
    if not key or not secret:
        return None
    # A session token belongs to AWS's variables only; beside another key it would make every signature wrong.
    token = env.get("AWS_SESSION_TOKEN", "") if env.get("AWS_ACCESS_KEY_ID") else ""
    return Credentials(key, secret, token)


def find_source(region: str, env: Mapping[str, str] | None = None) -> CredentialSource:
    """The first source of the environment that applies. Reads the shared files, contacts nothing.

    `region` is where tokens for web identities are asked for. Raises `StoreConfigError` for a profile that is named
    and is not there, or needs boto3.
    """
    from litestream.storage.s3 import aws_roles

    env = os.environ if env is None else env
    if found := from_environment(env):
        return static(found, "the environment")
    named = env.get("AWS_PROFILE") or env.get("AWS_DEFAULT_PROFILE") or ""
    if not named and env.get("AWS_WEB_IDENTITY_TOKEN_FILE") and env.get("AWS_ROLE_ARN"):
        return CredentialSource("the web identity token", aws_roles.web_identity(region, env))
    if source := _from_profile(named, env):
        return source
    if fetch := aws_roles.container(env):
        return CredentialSource("the container's role", fetch)
    if env.get("AWS_EC2_METADATA_DISABLED", "").lower() != "true":
        return CredentialSource("the machine's role", aws_roles.instance(env))
    return CredentialSource("nowhere", _none)


async def _none() -> Credentials:
    raise StorageError(f"no AWS credentials: {NO_CREDENTIALS}", permanent=True, code="NoCredentials")


NO_CREDENTIALS = (
    "set access-key-id and secret-access-key, or AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, or AWS_PROFILE, "
    "or give this machine or container a role"
)


def _files(env: Mapping[str, str]) -> tuple[str, str]:
    home = os.path.expanduser("~")
    return (
        os.path.expanduser(env.get("AWS_SHARED_CREDENTIALS_FILE") or os.path.join(home, ".aws", "credentials")),
        os.path.expanduser(env.get("AWS_CONFIG_FILE") or os.path.join(home, ".aws", "config")),
    )


def read_profile(name: str, env: Mapping[str, str]) -> dict[str, str] | None:
    """What the shared files say of a profile, the credentials file over the config file; None if neither knows it."""
    credentials_file, config_file = _files(env)
    found: dict[str, str] = {}
    known = False
    for path, sections in (
        (config_file, ([name] if name == "default" else []) + [f"profile {name}"]),
        (credentials_file, [name]),
    ):
        parser = configparser.RawConfigParser(strict=False, default_section="\0none", delimiters=("=",))
        try:
            with open(path, encoding="utf-8") as file:
                parser.read_file(file)
        except FileNotFoundError:
            continue
        except (OSError, UnicodeDecodeError, configparser.Error) as error:
            # The parser's own text repeats lines of the file.
            raise StoreConfigError("AWS_PROFILE", f"cannot read {path}: {type(error).__name__}") from None
        for section in sections:
            if parser.has_section(section):
                known = True
                found.update(parser[section])
    return found if known else None


def _from_profile(named: str, env: Mapping[str, str]) -> CredentialSource | None:
    """The source that a profile is; None if no profile is asked for and the default one says nothing."""
    name = named or "default"
    profile = read_profile(name, env)
    if profile is None and named:
        where = " and ".join(_files(env))
        raise StoreConfigError("AWS_PROFILE", f"there is no AWS profile {name!a} in {where}")
    if profile is None:
        return None
    if any(key in profile for key in _NEEDS_BOTO3):
        return _from_boto3(name)
    if not _keys_of(profile):
        if named:
            raise StoreConfigError("AWS_PROFILE", f"the AWS profile {name!a} holds no access key")
        return None

    async def fetch() -> Credentials:
        try:
            keys = _keys_of(read_profile(name, env) or {})
        except StoreConfigError as error:
            raise StorageError(str(error), code="NoCredentials") from None
        if keys is None:
            raise StorageError(f"the AWS profile {name!a} holds no access key any more", code="NoCredentials")
        return keys

    return CredentialSource(f"the AWS profile {name!a}", fetch)


def _keys_of(profile: Mapping[str, str]) -> Credentials | None:
    key, secret = profile.get("aws_access_key_id", ""), profile.get("aws_secret_access_key", "")
    if not key or not secret:
        return None
    return Credentials(key, secret, profile.get("aws_session_token", ""), time.time() + FILE_LIFE)


def _from_boto3(name: str) -> CredentialSource:
    """A profile that boto3 can use. It renews by itself, so it is only asked again from time to time."""
    try:
        import boto3
        import botocore.exceptions
    except ImportError:
        message = f'the AWS profile {name!a} needs an extra package: install "litestream[aws]"'
        raise StoreConfigError("AWS_PROFILE", message) from None
    from litestream.storage.plain_http import in_thread

    session = None

    def ask() -> Credentials:
        nonlocal session
        try:
            session = session or boto3.Session(profile_name=name).get_credentials()
            keys = session.get_frozen_credentials() if session is not None else None
        except (botocore.exceptions.BotoCoreError, botocore.exceptions.ClientError, OSError) as error:
            session = None
            raise StorageError(
                f"no credentials from the AWS profile {name!a}: {_one_line(error)}", code="NoCredentials"
            ) from None
        if keys is None:
            raise StorageError(f"no credentials from the AWS profile {name!a}", code="NoCredentials")
        return Credentials(keys.access_key, keys.secret_key, keys.token or "", time.time() + FILE_LIFE)

    return CredentialSource(f"the AWS profile {name!a}", lambda: in_thread(ask))


def _one_line(error: BaseException) -> str:
    return " ".join(str(error).split())[:200]
