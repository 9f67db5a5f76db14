"""What to do about each kind of error of an s3 replica."""

from __future__ import annotations

from litestream.storage.s3 import S3Config


def hints(config: S3Config) -> dict[str, str]:
    """What to do about each kind of error."""
    where = f"{config.bucket}/{config.path}/*" if config.path else f"{config.bucket}/*"
    keys = "check access-key-id, secret-access-key"
    return {
        "AccessDenied": f"the credentials need s3:PutObject, s3:GetObject and s3:DeleteObject on {where}, "
        f"s3:ListBucket on {config.bucket}",
        "AccessDenied:put": f"the credentials need s3:PutObject on {where}",
        "AccessDenied:get": f"the credentials need s3:GetObject on {where}, and s3:ListBucket on {config.bucket} "
        "to see that an object is absent",
        "AccessDenied:list": f"the credentials need s3:ListBucket on {config.bucket}",
        "AccessDenied:delete": f"the credentials need s3:DeleteObject on {where}; objects may be locked",
        "AccessDenied:clean up": "the credentials need s3:ListBucketMultipartUploads and s3:AbortMultipartUpload",
        "SignatureDoesNotMatch": f"{keys} and region",
        "InvalidAccessKeyId": f"{keys}, and that endpoint is the service that gave them",
        "InvalidToken": "check session-token",
        "ExpiredToken": "the credentials have expired",
        "RequestTimeTooSkewed": "set the clock of this machine",
        "NoSuchBucket": "create it, or check bucket, endpoint and region",
        "BadAnswer": "check endpoint: another service may answer there",
        "WrongRegion": "set region to {region}",
        "InvalidStorageClass": "check storage-class",
        "NotImplemented": "the service does not know this request: check sse, storage-class and conditional",
        "InvalidObjectState": "the object is archived: restore it in the service first",
        "EntityTooSmall": "set a larger part-size",
        "EntityTooLarge": "set a larger part-size",
        "TLS": "name the service's authority in SSL_CERT_FILE or AWS_CA_BUNDLE, or write endpoint as it is: "
        "http:// is plain",
        "Connection": f"check endpoint {config.endpoint}" if config.endpoint else "check the network and region",
    }
