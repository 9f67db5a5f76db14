"""What a machine gives its programs for S3: credentials, and authorities."""

from __future__ import annotations

import os
import ssl

from litestream.errors import StoreConfigError
from litestream.storage.s3 import S3Config, aws


def source_of(config: S3Config, region: str) -> aws.CredentialSource:
    """Where the credentials come from: the configuration, or what this machine has for a bucket in `region`."""
    if config.access_key_id:
        keys = aws.Credentials(config.access_key_id, config.secret_access_key, config.session_token)
        return aws.static(keys, "the configuration")
    here = os.environ.get("AWS_REGION") or os.environ.get("AWS_DEFAULT_REGION")
    return aws.find_source(here or (region if region != "auto" else "") or "us-east-1")


def authorities() -> bytes:
    """The certificates of `AWS_CA_BUNDLE`, beside those of the system; `SSL_CERT_FILE` is known to both libraries."""
    path = os.environ.get("AWS_CA_BUNDLE", "")
    if not path or path == os.environ.get("SSL_CERT_FILE"):
        return b""
    try:
        with open(path, "rb") as file:
            return file.read()
    except OSError as error:
        message = f"cannot read the file of AWS_CA_BUNDLE: {type(error).__name__}"
        raise StoreConfigError("AWS_CA_BUNDLE", message) from None


def tls_context(extra: bytes, *, skip_verify: bool) -> ssl.SSLContext:
    """For requests that obstore does not make; `extra` are authorities, in PEM, beside those of the system."""
    context = ssl.create_default_context()
    if extra:
        context.load_verify_locations(cadata=extra.decode("ascii", "ignore"))
    if skip_verify:
        context.check_hostname = False
        context.verify_mode = ssl.CERT_NONE
    return context
