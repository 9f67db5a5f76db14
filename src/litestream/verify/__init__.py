"""Verification: is everything in a replica sound, and is what it restores the database?

::

    objects   each object by itself, each pair of neighbours          no trust in names or times
    spans     which states of each generation can be restored
    live      a fingerprint of the running database at one position, while writers go on
    match     waits until the replica has that position
    replica   restores exactly there to a scratch file, compares, runs SQLite's own check
    running   the same within the daemon, for `validation-interval`

The result is never a guess: ok, failed (with proof), or could not tell (with the reason).
"""
