"""The version, as a constant: reading package metadata would cost more than all of `litestream version`."""

VERSION = "0.1.0"
