"""Following a database: a copy that is kept up to date, from another replicator's `/stream` or from a replica.

::

    link      the stream's records, from the network                  store     a replica's segments, by polling
    assemble  segments that follow each other -> whole transactions
    copy      each batch one transaction of the local copy, and where it stands in a note beside it
    follower  the loop of the daemon: connect, apply, come back
"""
