"""Provides what long jobs on several machines need: joining processes, atomic files, retries.

    with processes.joined():                      # several processes that run one program
        with atomic_write(path) as file: ...        # there whole or not at all
        retry(lambda: read(path), path)       # again after a passing fault
        with Termination(mesh) as termination: ...

Import the modules by name. `heartbeats`, `processes` and `termination` need JAX; the others do not.
"""
