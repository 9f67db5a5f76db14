"""The lease on real servers: of two hosts at the same moment just one gets an epoch, and the other one finds out."""

from __future__ import annotations

import asyncio
import logging

import pytest

from helpers.destinations import DESTINATIONS, Destination
from helpers.fakedb import FakeDB
from litestream.config import ReplicaConfig
from litestream.errors import LeaseLostError, StorageError
from litestream.replica.lease import Keeper
from litestream.replica.log import ReplicaLogger

LOGGER = ReplicaLogger(logging.getLogger("test"), "/data/app.db", "r")


@pytest.mark.parametrize("destination", DESTINATIONS, indirect=True)
async def test_one_of_two_hosts_has_the_lease(destination: Destination, request: pytest.FixtureRequest) -> None:
    """Where the store has conditional writes; elsewhere there is no lease and no request. A service that has none, and
    was not known for that, tells a second host from the first unless both come at the same moment.
    """
    config = ReplicaConfig.model_validate({name.replace("-", "_"): v for name, v in destination.entry.items()})
    clients = [config.open() for _ in range(2)]
    dbs = [FakeDB(), FakeDB()]
    try:
        time = [1000.0]

        async def sleep(seconds: float) -> None:
            time[0] += seconds

        keepers = [
            Keeper(db, client, "r", LOGGER, host=host, clock=lambda: time[0], sleep=sleep, ended=lambda _: False)
            for db, client, host in zip(dbs, clients, "ab", strict=True)
        ]
        if "without conditions" in request.node.name:
            await keepers[0].hold()
            time[0] += 100
        results = await asyncio.gather(*(keeper.hold() for keeper in keepers), return_exceptions=True)
        if not clients[0].store.conditional:
            assert results == [None, None]
            assert await clients[0].store.list("lease/") == []
            return
        for keeper, result in zip(keepers, results, strict=True):
            if isinstance(result, StorageError):  # the other one was faster: the next try takes over from it
                await keeper.hold()
            else:
                assert result is None or isinstance(result, LeaseLostError)
        assert {keeper.epoch for keeper in keepers} == {1, 2}
        winner, loser = sorted(keepers, key=lambda keeper: -keeper.epoch)
        time[0] += 100
        await winner.hold()
        with pytest.raises(LeaseLostError):
            await loser.hold()
        await winner.release()
        keys = [info.key for info in await clients[0].store.list("lease/")]
        assert keys == ["lease/00000002", "lease/00000002.released"]
    finally:
        for client, db in zip(clients, dbs, strict=True):
            await client.close()
            db.close()
