"""Google Cloud Storage on fake-gcs-server: what can be read there, and what is said of writing."""

from __future__ import annotations

import pytest

from helpers.contract import keys, read
from helpers.servers.fake_gcs import FakeGCS, fake_gcs
from litestream.errors import ObjectNotFoundError, StorageError
from litestream.storage.gcs import GCSConfig

__all__ = ["fake_gcs"]
pytestmark = pytest.mark.xdist_group("fake_gcs")


async def test_objects_of_other_programs(fake_gcs: FakeGCS, monkeypatch: pytest.MonkeyPatch) -> None:
    """What Google's libraries stored is listed, read from anywhere, and deleted."""
    monkeypatch.setenv("STORAGE_EMULATOR_HOST", f"127.0.0.1:{fake_gcs.port}")
    bucket = fake_gcs.bucket("reading")
    names = ["generations/00/wal/1.lz4", "generations/00/wal/2.lz4", "odd é %2e + name"]
    for name in (*(f"p/{name}" for name in names), "q/beside", "p/"):
        fake_gcs.upload(bucket, name, name.encode())
    store = GCSConfig.from_url(f"gs://{bucket}/p").open()
    assert await keys(store) == names
    assert await keys(store, "generations/") == names[:2]
    assert await read(store, names[2]) == f"p/{names[2]}".encode()
    assert await read(store, names[0], 2) == names[0].encode()
    with pytest.raises(ObjectNotFoundError):
        await read(store, "absent")
    await store.delete([names[0], "absent", names[2]])
    assert await keys(store) == [names[1]]


async def test_writing_is_refused(fake_gcs: FakeGCS, monkeypatch: pytest.MonkeyPatch) -> None:
    """The emulator takes no puts of the XML API; the error says so, and nothing is stored."""
    monkeypatch.setenv("STORAGE_EMULATOR_HOST", f"http://127.0.0.1:{fake_gcs.port}")
    store = GCSConfig.from_url(f"gs://{fake_gcs.bucket('writing')}").open()
    for create_only in (False, True):
        with pytest.raises(StorageError, match="no XML API") as caught:
            await store.put("a", b"x", create_only=create_only)
        assert (caught.value.code, caught.value.permanent) == ("NoXML", True)
    assert await keys(store) == []
