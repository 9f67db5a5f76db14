"""What the S3 servers of the tests have in common: keys, buckets, and a client that is not ours to look behind."""

from __future__ import annotations

import itertools
import time
from functools import cached_property
from typing import Any

KEY, SECRET = "testkey", "testsecret-kept"
KEPT = 12
"""Buckets that are kept; a test uses one, or two."""
_names = itertools.count(1)


class S3Server:
    """A running server with one pair of keys. `admin` is boto3's client: an independent witness."""

    def __init__(self, port: int, version: str) -> None:
        self.port = port
        self.version = version
        self.key, self.secret = KEY, SECRET
        self._buckets: list[str] = []

    @property
    def endpoint(self) -> str:
        """Where it listens."""
        return f"http://127.0.0.1:{self.port}"

    @cached_property
    def admin(self) -> Any:  # noqa: ANN401 - boto3 has no types
        """A client with all rights."""
        import boto3
        from botocore.config import Config

        return boto3.client(
            "s3",
            endpoint_url=self.endpoint,
            aws_access_key_id=self.key,
            aws_secret_access_key=self.secret,
            region_name="us-east-1",
            verify=False,
            config=Config(s3={"addressing_style": "path"}, retries={"max_attempts": 1}, proxies={}),
        )

    def new_bucket(self) -> str:
        """A bucket that nobody else uses; waits until the server takes objects."""
        name = f"bucket-{next(_names)}-{time.time_ns() % 10**9}"
        self.admin.create_bucket(Bucket=name)
        self._buckets.append(name)
        if len(self._buckets) > KEPT:
            self._remove(self._buckets.pop(0))
        return name

    def _remove(self, bucket: str) -> None:
        """Delete a bucket of a test long over: on SeaweedFS each takes volumes, and it runs out of them."""
        from botocore.exceptions import ClientError

        try:
            for name in self.names(bucket):
                self.admin.delete_object(Bucket=bucket, Key=name)
            self.admin.delete_bucket(Bucket=bucket)
        except ClientError:
            pass  # locked objects, a policy of a test: such a bucket stays

    def settings(self, bucket: str, **more: object) -> dict[str, object]:
        """Settings of a replica in that bucket."""
        keys = {"access_key_id": self.key, "secret_access_key": self.secret}
        return {"bucket": bucket, "endpoint": self.endpoint, "region": "us-east-1", **keys, **more}

    def names(self, bucket: str) -> list[str]:
        """The names of all objects, as the server has them."""
        pages = self.admin.get_paginator("list_objects_v2").paginate(Bucket=bucket)
        return [entry["Key"] for page in pages for entry in page.get("Contents", [])]

    def pending(self, bucket: str) -> list[str]:
        """The names of objects whose multipart upload is neither completed nor aborted."""
        return [entry["Key"] for entry in self.admin.list_multipart_uploads(Bucket=bucket).get("Uploads", [])]
