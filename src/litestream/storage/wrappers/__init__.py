"""What stands between a replica and its back end: time limits, retries, limits, metering, each a store itself."""
