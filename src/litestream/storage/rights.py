"""What to allow, per type of store, for each thing that `litestream.storage.probe` tries."""

from __future__ import annotations

from litestream.storage.probe import Operation

_S3_UPLOADS = "s3:ListBucketMultipartUploads on {bucket} and s3:AbortMultipartUpload on {objects}"
_AZURE_WRITE = "the role Storage Blob Data Contributor, or a SAS with the permissions c and w"
_NATS = "publish on $O.{bucket}.> and $JS.API.>, and subscribe to _INBOX.>"

_READS = (Operation.READ, Operation.RANGE, Operation.ABSENT)
_WRITES = (Operation.WRITE, Operation.CREATE, Operation.OVERWRITE, Operation.ENCRYPTION)

_RIGHTS: dict[str, dict[tuple[Operation, ...], str]] = {
    "s3": {
        _WRITES: "s3:PutObject on {objects}",
        (Operation.READ, Operation.RANGE): "s3:GetObject on {objects}",
        (
            Operation.ABSENT,
        ): "s3:GetObject on {objects} and s3:ListBucket on {bucket}: without the latter an object that "
        "is not there is access denied",
        (Operation.LIST, Operation.GONE): "s3:ListBucket on {bucket}, where s3:prefix is like {prefix}*",
        (Operation.DELETE,): "s3:DeleteObject on {objects}",
        (Operation.UPLOADS,): _S3_UPLOADS,
    },
    "gs": {
        (Operation.WRITE, Operation.CREATE, Operation.ENCRYPTION): "storage.objects.create on {bucket} (the role "
        "Storage Object Creator)",
        (
            Operation.OVERWRITE,
        ): "storage.objects.create and storage.objects.delete on {bucket}: to overwrite is to delete",
        _READS: "storage.objects.get on {bucket} (the role Storage Object Viewer)",
        (Operation.LIST, Operation.GONE): "storage.objects.list on {bucket} (the role Storage Object Viewer)",
        (Operation.DELETE,): "storage.objects.delete on {bucket} (the role Storage Object User)",
    },
    "abs": {
        _WRITES: f"{_AZURE_WRITE} on {{bucket}}",
        _READS: "the role Storage Blob Data Reader, or a SAS with the permission r, on {bucket}",
        (
            Operation.LIST,
            Operation.GONE,
        ): "the role Storage Blob Data Reader, or a SAS with the permission l, on {bucket}",
        (Operation.DELETE,): "the role Storage Blob Data Contributor, or a SAS with the permission d, on {bucket}",
    },
    "oss": {
        _WRITES: "oss:PutObject on {objects}",
        _READS: "oss:GetObject on {objects}",
        (Operation.LIST, Operation.GONE): "oss:ListObjects on {bucket}",
        (Operation.DELETE,): "oss:DeleteObject on {objects}",
    },
    "sftp": {
        _WRITES: "the right to make files and directories in {prefix} and to rename them",
        _READS: "the right to read files below {prefix}",
        (Operation.LIST, Operation.GONE): "the right to read the directories below {prefix}",
        (Operation.DELETE,): "the right to delete files below {prefix}",
    },
    "webdav": {
        _WRITES: "the methods PUT, MKCOL and MOVE below {prefix}",
        _READS: "the method GET below {prefix}",
        (Operation.LIST, Operation.GONE): "the method PROPFIND below {prefix}",
        (Operation.DELETE,): "the method DELETE below {prefix}",
    },
    "nats": {tuple(Operation): _NATS},
    "file": {
        (*_WRITES, Operation.DELETE): "write permission on {prefix} and what is in it (owner and mode)",
        (*_READS, Operation.LIST, Operation.GONE): "read permission on {prefix} and what is in it (owner and mode)",
    },
}


def right_for(kind: str, operation: Operation, *, bucket: str = "", path: str = "") -> str:
    """What is to be allowed for an operation on a store of that type; empty where nothing is known.

    `bucket` and `path` are where the replica is.
    """
    folder = path.strip("/")
    prefix = f"{folder}/" if folder else ""
    places = {
        "bucket": bucket or "the bucket",
        "objects": f"{bucket or 'the bucket'}/{prefix}*",
        "prefix": prefix if kind == "s3" else path or "the replica's directory",
    }
    for operations, right in _RIGHTS.get(kind, {}).items():
        if operation in operations:
            return right.format_map(places)
    return ""
