"""The benchmarks: this program beside the official ones, by black-box measurements of the commands."""
