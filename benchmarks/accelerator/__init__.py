"""The parts of `on_accelerator.py`: each module is a process of its own, with `main()`.

Needs JAX, Flax, Optax, Orbax and NumPy of other packages; transformers and PyTorch for the peer.
"""
