"""Amazon S3 and everything that speaks its language (`s3`): the settings of a replica."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Self

from litestream.storage.protocol import Store
from litestream.storage.s3.settings import read_settings
from litestream.storage.wrappers.requests import PART


@dataclass(frozen=True, slots=True, kw_only=True)
class S3Config:
    """Settings of one `s3` replica.

    Attributes:
        path: what all keys begin with, without slashes around it.
        region: empty: the service's own; on AWS it is looked up.
        endpoint: empty: AWS. A URL, plain `http://` only if written so.
        force_path_style: the bucket in the path, not in the host name; None: as the service wants it.
        require_content_md5: uploads carry a checksum beside the signature, which object lock demands; None: on AWS.
        part_size: bytes of a part, and of the largest body that is one request.
        concurrency: parts of an upload at once; None: as many as the service takes.
        conditional: whether the service honours `If-None-Match`; None: what is known of it.
        sse_customer_key: 32 bytes in base64.
    """

    bucket: str
    path: str = ""
    region: str = ""
    endpoint: str = ""
    force_path_style: bool | None = None
    skip_verify: bool = False
    access_key_id: str = field(default="", repr=False)
    secret_access_key: str = field(default="", repr=False)
    session_token: str = field(default="", repr=False)
    sign_payload: bool = True
    require_content_md5: bool | None = None
    storage_class: str = ""
    part_size: int = PART
    concurrency: int | None = None
    sse: str = ""
    sse_kms_key_id: str = ""
    sse_customer_key: str = field(default="", repr=False)
    conditional: bool | None = None

    @classmethod
    def from_settings(cls, settings: Mapping[str, Any]) -> Self:
        """From the keys of litestream.yml, `url` among them; an endpoint also from the environment.

        Raises `StoreConfigError`.
        """
        return cls(**read_settings(settings))

    @classmethod
    def from_url(cls, url: str, **settings: Any) -> Self:  # noqa: ANN401 - each setting has a type of its own
        """From `s3://BUCKET/PATH?OPTION=VALUE`; `settings` go before what the URL says. Raises `StoreConfigError`."""
        return cls.from_settings({**settings, "url": url})

    @property
    def url(self) -> str:
        """The canonical URL, without secrets."""
        place = f"s3://{self.bucket}" + (f"/{self.path}" if self.path else "")
        return f"{place}?endpoint={self.endpoint}" if self.endpoint else place

    def open(self) -> Store:
        """The store; contacts nothing. Raises `StoreConfigError` for a profile that cannot be used."""
        from litestream.storage.s3.store import S3Store

        return S3Store(self)
