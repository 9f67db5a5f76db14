"""S3 on versitygw: a second implementation of everything, conditional puts included."""

from __future__ import annotations

from collections.abc import AsyncIterator

import pytest

from helpers.remotecontract import SentContract
from helpers.servers.s3 import S3Server
from helpers.servers.versitygw import versitygw
from litestream.storage.protocol import Store
from litestream.storage.s3 import S3Config

__all__ = ["versitygw"]
pytestmark = pytest.mark.xdist_group("versitygw")


class TestVersityGW(SentContract):
    """Objects are files there."""

    @pytest.fixture
    async def store(self, versitygw: S3Server) -> AsyncIterator[Store]:
        """One bucket per test."""
        store = S3Config.from_settings(versitygw.settings(versitygw.new_bucket())).open()
        yield store
        await store.close()
