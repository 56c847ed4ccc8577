"""One limit for every wait of the tests: for what should come at once, and on a busy machine comes late.

A test waits for what it expects (an event, the end of a process) and looks at what came, never at how long that took. A
wait that lasts so long has failed. What hangs without a limit of its own, such as a program that a test starts, is
ended by pytest's ``timeout``, which is longer.
"""

PATIENCE_S = 600.0
