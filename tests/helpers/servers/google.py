"""Google's dialect: bearer tokens signed by a service account, and generations as conditions."""

from __future__ import annotations

import base64
import json
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest
from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import padding, rsa

from helpers.servers.dialect import Dialect, Gateway, Refusal, Seen
from helpers.servers.s3 import S3Server

CONDITION = "x-goog-if-generation-match"


class ServiceAccount:
    """An account with a key of its own."""

    def __init__(self, name: str) -> None:
        self.email = f"{name}@project.iam.gserviceaccount.com"
        self._key = rsa.generate_private_key(65537, 2048)
        pem = self._key.private_bytes(
            serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
        )
        self.private_key = pem.decode()

    def write(self, path: Path) -> Path:
        """The file that Google's console gives out."""
        content = {"type": "service_account", "client_email": self.email, "private_key": self.private_key}
        path.write_text(json.dumps({**content, "private_key_id": "1", "client_id": "1"}))
        return path

    def signed(self, token: str) -> bool:
        """Whether `token` is one that this account signed for the store, and is still valid."""
        try:
            signed, _, signature = token.rpartition(".")
            self._key.public_key().verify(_decoded(signature), signed.encode(), padding.PKCS1v15(), hashes.SHA256())
            claims = json.loads(_decoded(signed.split(".")[1]))
        except (InvalidSignature, ValueError, IndexError):
            return False
        return claims["iss"] == self.email and claims["exp"] > time.time() and "auth/cloud-platform" in claims["scope"]


def _decoded(text: str) -> bytes:
    return base64.urlsafe_b64decode(text + "=" * (-len(text) % 4))


class Google(Dialect):
    """The XML API. `tokens` are valid besides those that `account` signs; `readers` may not write."""

    def __init__(self, account: ServiceAccount) -> None:
        self.account = account
        self.tokens: set[str] = set()
        self.readers: set[str] = set()

    def refusal(self, seen: Seen) -> Refusal | None:
        token = seen.headers.get("authorization", "").removeprefix("Bearer ")
        if token in self.readers and seen.method not in {"GET", "HEAD"}:
            return Refusal(403, "AccessDenied", "reader@project does not have storage.objects.create access")
        if token in self.tokens | self.readers or self.account.signed(token):
            return None
        return Refusal(401, "AuthenticationRequired", "Authentication required.")

    def headers(self, seen: Seen) -> dict[str, str]:
        return {"If-None-Match": "*"} if seen.headers.get(CONDITION) == "0" else {}


@dataclass
class GooglePlace:
    """A gateway, and the key file of the account that may do everything."""

    gateway: Gateway
    credentials: Path

    @property
    def endpoint(self) -> str:
        """Where it listens."""
        return f"http://127.0.0.1:{self.gateway.port}"


@pytest.fixture(scope="session")
def google_place(seaweedfs: S3Server, tmp_path_factory: pytest.TempPathFactory) -> Iterator[GooglePlace]:
    """One gateway for programs, which have a configuration and no fixtures."""
    account = ServiceAccount("backup")
    with Gateway(seaweedfs, Google(account)) as gateway:
        yield GooglePlace(gateway, account.write(tmp_path_factory.mktemp("google") / "key.json"))
