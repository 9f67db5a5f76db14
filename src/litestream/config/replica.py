"""One place where a database is copied to, and the defaults that a file has for all of them."""

from __future__ import annotations

import os
import re
from collections.abc import Collection
from typing import TYPE_CHECKING, Annotated, Any, ClassVar
from urllib.parse import quote

from litestream.config.model import JsonSchema, SecretStr
from litestream.config.paths import destination
from litestream.config.store_keys import BY_NAME, NETWORK, belongs_elsewhere
from litestream.config.store_settings import SettingError, StoreSettings
from litestream.config.values import Flag, Seconds
from litestream.errors import StoreConfigError

if TYPE_CHECKING:
    from litestream.client import ReplicaClient
    from litestream.metrics import Metrics
    from litestream.storage.backends import BackendConfig
    from litestream.storage.wrappers.wrap import Budget, Limits


class ReplicaDefaults(StoreSettings):
    """What the top of the file may hold for all replicas; None where not given. Resolved already in each replica."""

    sync_interval: Seconds | None = None
    snapshot_interval: Seconds | None = None
    retention: Seconds | None = None
    retention_check_interval: Seconds | None = None
    validation_interval: Seconds | None = None
    lease: Flag | None = None


class ReplicaConfig(StoreSettings):
    """One place where a database is copied to."""

    HIDDEN: ClassVar[Collection[str]] = frozenset({"url"})

    type: Annotated[str, JsonSchema({"enum": ["file", *NETWORK, "gcs", "webdavs"]})] = "file"
    name: str = ""
    """As given; `label` is never empty."""
    path: str = ""
    """Absolute directory of a file replica, also when a `url` gave it; else what names in the store begin with."""
    url: Annotated[SecretStr | None, JsonSchema({"type": "string"})] = None
    """As given, or None: it may hold secrets. `location` is for people."""
    sync_interval: Seconds = 1.0
    snapshot_interval: Seconds = 0.0
    """0: a snapshot only when one is needed."""
    retention: Seconds = 86400.0
    """0: for ever."""
    retention_check_interval: Seconds = 3600.0
    """0: nothing is ever deleted."""
    validation_interval: Seconds = 0.0
    """0: never."""
    lease: Flag | None = None
    """Whether the replica is claimed before it is written to; None: where the store can hold a lease."""
    _backend: BackendConfig | None = None

    @classmethod
    def _before(cls, values: dict[str, Any]) -> dict[str, Any]:
        url = values.get("url")
        data = {**values, "url": url.get_secret_value() if isinstance(url, SecretStr) else url}
        if not all(isinstance(data.get(key) or "", str) for key in ("type", "path", "url")):
            return data
        others = {name.replace("_", "-"): value for name, value in data.items()}
        kind, path = destination(data.get("type"), data.get("path"), data.get("url"), others)
        return {**data, "type": kind, "path": path}

    def _after(self) -> None:
        for name, key in BY_NAME.items():
            problem = belongs_elsewhere(key, self.type) if getattr(self, name.replace("-", "_")) is not None else ""
            if problem:
                raise SettingError(name, f"{name} {problem}")
        self._check_store()

    def _check_store(self) -> None:
        """Everything that only the back end knows of, before anything is replicated."""
        from litestream.storage import backend_config

        try:
            object.__setattr__(self, "_backend", backend_config(self.type, self.store_settings()))
            if self.age is not None:
                from litestream.storage.age.keys import AgeKeys

                keys = self.age.keys()
                AgeKeys(keys["recipients"], keys["identities"])
        except StoreConfigError as error:
            raise SettingError(error.setting, str(error)) from None

    def store_settings(self) -> dict[str, Any]:
        """Settings for `litestream.storage.open_store`, secrets in clear."""
        place = {"url": self.url.get_secret_value()} if self.url and self.type != "file" else {"path": self.path}
        return {**self.plain(self.type), **{name: value for name, value in place.items() if value}, "type": self.type}

    def limits(self) -> Limits:
        """Time and requests that the store may take."""
        from litestream.storage.wrappers.wrap import Limits

        given: dict[str, Any] = {} if self.timeout is None else {"timeout": self.timeout}
        if self.max_requests is not None:
            given["requests_per_second"] = self.max_requests.per_second or 0
            given["requests_per_month"] = self.max_requests.per_month or 0
        return Limits(**given)

    def open(self, *, metrics: Metrics | None = None, budget: Budget | None = None) -> ReplicaClient:
        """A client for this replica; nothing is contacted yet. Raises `StoreConfigError`."""
        from litestream.client import open_client

        settings = self.store_settings()
        return open_client(
            settings.pop("url", ""),
            settings=settings,
            limits=self.limits() if self.type != "file" else None,
            metrics=metrics,
            budget=budget,
            age=self.age.keys() if self.age is not None else None,
        )

    @property
    def label(self) -> str:
        """The name, or the type where none was given."""
        return self.name or self.type

    @property
    def location(self) -> str:
        """Where it is, for people, without secrets: the directory, or the URL."""
        return self.path if self.type == "file" else self.backend.url

    @property
    def backend(self) -> BackendConfig:
        """The checked settings of the store."""
        assert self._backend is not None  # since the model was built
        return self._backend

    @property
    def place(self) -> tuple[str, ...]:
        """The same for two replicas that would share their objects."""
        return self.type, self.backend.url, getattr(self.backend, "endpoint", "")

    def below(self, relative: str) -> ReplicaConfig:
        """The same replica, one place further down: for the database at `relative` below a directory.

        The place is appended to the path, as in the official 0.5. A name in a service is Unicode: bytes of `relative`
        that are no UTF-8 are written `%XX` there. Raises `ValidationError`.
        """
        fields = {name: getattr(self, name) for name in self.KEYS}
        values = {name: value for name, value in fields.items() if value is not None}
        if self.type == "file":
            return ReplicaConfig.model_validate({**values, "path": os.path.join(self.path, relative), "url": None})
        name = _BYTE.sub(lambda match: f"%{ord(match[0]) - 0xDC00:02X}", relative)
        if self.url is None:
            return ReplicaConfig.model_validate({**values, "path": f"{self.path.rstrip('/')}/{name}"})
        place, question, options = self.url.get_secret_value().partition("?")
        url = f"{place.rstrip('/')}/{quote(name)}{question}{options}"
        return ReplicaConfig.model_validate({**values, "path": "", "url": url})


_BYTE = re.compile("[\udc80-\udcff]")
"""How Python carries a byte of a path that is no UTF-8."""
