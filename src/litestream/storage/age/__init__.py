"""Encryption with age, as a wrapper of any store."""
