"""How much memory a test's program has needed at most.

`ru_maxrss` cannot be used: it begins with what the process that started the program had, and pytest has more than most.
"""

from __future__ import annotations

PEAK = '''
def peak():
    """The most memory this process had so far, in KiB."""
    with open("/proc/self/status") as status:
        return int(next(line for line in status if line.startswith("VmHWM")).split()[1])
'''
"""To be put before a program."""
