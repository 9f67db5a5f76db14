"""Credentials of roles on AWS: of the machine (IMDSv2), of the container (ECS, EKS), by web identity (EKS, CI).

Each is a function that makes a function that fetches. Answers are small; services of the machine itself are never
asked through a proxy.
"""

from __future__ import annotations

import ipaddress
import json
import os
import time
from collections.abc import Mapping
from datetime import datetime
from urllib.parse import urlencode, urlsplit

from litestream.errors import StorageError
from litestream.storage.plain_http import Answer, request
from litestream.storage.s3.aws import NO_CREDENTIALS, Credentials, Fetch
from litestream.storage.s3.xml import parse_xml, text_of

_IMDS = "http://169.254.169.254"
_CONTAINER = "http://169.254.170.2"
_PATH = "/latest/meta-data/iam/security-credentials/"
_LOCAL_TIMEOUT = 2.0
"""Seconds: these services are on the machine, and where there is none the packets are often just dropped."""
_STS_TIMEOUT = 10.0


def instance(env: Mapping[str, str]) -> Fetch:
    """The role of a machine on EC2, by IMDSv2."""
    base = (env.get("AWS_EC2_METADATA_SERVICE_ENDPOINT") or _IMDS).rstrip("/")

    async def fetch() -> Credentials:
        what = "the machine's role"
        ask = {"X-aws-ec2-metadata-token-ttl-seconds": "21600"}
        token = await _local("PUT", f"{base}/latest/api/token", ask, what)
        headers = {"X-aws-ec2-metadata-token": token.text.strip()}
        role = (await _local("GET", base + _PATH, headers, what)).text.split("\n")[0].strip()
        if not role:
            raise _fault(f"this machine has no role: {NO_CREDENTIALS}", passing=False)
        return _from_json(await _local("GET", base + _PATH + role, headers, what), what)

    return fetch


def container(env: Mapping[str, str]) -> Fetch | None:
    """The role of a container (ECS, EKS Pod Identity), where the environment says that it has one."""
    if relative := env.get("AWS_CONTAINER_CREDENTIALS_RELATIVE_URI"):
        url = f"{_CONTAINER}/{relative.lstrip('/')}"
    elif full := env.get("AWS_CONTAINER_CREDENTIALS_FULL_URI"):
        url = full
    else:
        return None
    token_file = env.get("AWS_CONTAINER_AUTHORIZATION_TOKEN_FILE", "")

    async def fetch() -> Credentials:
        what = "the container's role"
        if not _may_have_token(url):
            raise _fault(f"{what} is asked for at an address that is neither https nor local", passing=False)
        token = _read(token_file, what) if token_file else env.get("AWS_CONTAINER_AUTHORIZATION_TOKEN", "")
        headers = {"Authorization": token} if token else {}
        return _from_json(await _local("GET", url, headers, what), what)

    return fetch


def web_identity(region: str, env: Mapping[str, str]) -> Fetch:
    """The role `AWS_ROLE_ARN`, by the token in `AWS_WEB_IDENTITY_TOKEN_FILE`, which is read anew each time."""
    suffix = "amazonaws.com.cn" if region.startswith("cn-") else "amazonaws.com"
    endpoint = env.get("AWS_ENDPOINT_URL_STS") or f"https://sts.{region}.{suffix}"
    path, role = env["AWS_WEB_IDENTITY_TOKEN_FILE"], env["AWS_ROLE_ARN"]
    session = env.get("AWS_ROLE_SESSION_NAME") or "litestream"

    async def fetch() -> Credentials:
        what = "the web identity token"
        form = {
            "Action": "AssumeRoleWithWebIdentity",
            "Version": "2011-06-15",
            "RoleArn": role,
            "RoleSessionName": session,
            "WebIdentityToken": _read(path, what),
        }
        headers = {"Content-Type": "application/x-www-form-urlencoded"}
        body = urlencode(form).encode()
        try:
            answer = await request("POST", endpoint.rstrip("/") + "/", headers, body, timeout=_STS_TIMEOUT)
        except OSError as error:
            raise _fault(f"{what}: no answer from STS: {type(error).__name__}") from None
        return _from_xml(answer, what)

    return fetch


async def _local(method: str, url: str, headers: Mapping[str, str], what: str) -> Answer:
    try:
        answer = await request(method, url, headers, timeout=_LOCAL_TIMEOUT, proxies=False)
    except OSError:
        raise _fault(f"no AWS credentials: {what} cannot be asked for: {NO_CREDENTIALS}") from None
    if answer.status != 200:
        passing = answer.status >= 500 or answer.status == 429
        raise _fault(f"no AWS credentials: {what}: HTTP {answer.status}: {NO_CREDENTIALS}", passing=passing)
    return answer


def _may_have_token(url: str) -> bool:
    """AWS's own rule: TLS, loopback, or the addresses of ECS and EKS."""
    parts = urlsplit(url)
    if parts.scheme == "https":
        return True
    try:
        address = ipaddress.ip_address(parts.hostname or "")
    except ValueError:
        return parts.hostname == "localhost"
    return address.is_loopback or str(address) in {"169.254.170.2", "169.254.170.23", "fd00:ec2::23"}


def _from_json(answer: Answer, what: str) -> Credentials:
    try:
        said = json.loads(answer.body)
        key, secret = str(said["AccessKeyId"]), str(said["SecretAccessKey"])
        found = Credentials(key, secret, said.get("Token") or "", _moment(said.get("Expiration")))
    except (ValueError, KeyError, TypeError, AttributeError):
        found = Credentials("", "")
    if not found.access_key_id or not found.secret_access_key:
        raise _fault(f"no AWS credentials: {what} gave an answer without keys")
    return found


def _from_xml(answer: Answer, what: str) -> Credentials:
    root = parse_xml(answer.body)
    if answer.status != 200:
        code = (text_of(root, "Code") if root is not None else "") or f"HTTP {answer.status}"
        passing = answer.status >= 500 or code in {"Throttling", "ExpiredTokenException", "IDPCommunicationError"}
        raise _fault(f"{what} is refused by STS: {code}: check the role's trust policy", passing=passing)
    keys = [text_of(root, tag) for tag in ("AccessKeyId", "SecretAccessKey", "SessionToken", "Expiration")]
    if not all(keys[:2]):
        raise _fault(f"{what}: STS gave an answer without keys")
    return Credentials(keys[0], keys[1], keys[2], _moment(keys[3]))


def _moment(text: str | None) -> float:
    """Unix seconds. Roles always end: without a time they are fetched again in an hour."""
    if not text:
        return time.time() + 3600
    return datetime.fromisoformat(text).timestamp()


def _read(path: str, what: str) -> str:
    try:
        with open(os.path.expanduser(path), encoding="utf-8") as file:
            return file.read().strip()
    except (OSError, UnicodeDecodeError) as error:
        raise _fault(f"{what} cannot be read: {path}: {type(error).__name__}") from None


def _fault(message: str, *, passing: bool = True) -> StorageError:
    return StorageError(message, permanent=not passing, code="NoCredentials")
