"""What any long job on many machines needs, whatever it computes.

    with processes.joined():                      # several processes that run one program
        with atomic_write(path) as file: ...        # there whole or not at all
        retry(lambda: read(path), path)       # again after a passing fault
        with Termination(mesh) as termination: ...

Modules are imported by name: `atomic` and `retries` need no JAX, the others do.
"""
