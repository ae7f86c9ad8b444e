"""The command line: explain, train, predict, bench. Thin: commands call what a program could call.

Exit codes: 0 done; 1 an error of Cartograd itself; 2 a wrong command; 3 data or a file that cannot
be used; 4 training that diverged; 128 + the signal's number where one interrupted a run (130 for
Ctrl-C; it can be resumed). With --json, standard output is one JSON object, also for an error.
"""

from __future__ import annotations

from .commands import main as main

__all__ = ["main"]
