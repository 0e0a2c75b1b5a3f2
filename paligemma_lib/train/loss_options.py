"""Checks the options of the loss, where a step is made and where the loss is traced.

label_smoothing, z_loss = checked_loss("token_losses", 0.1, 1e-4)
"""

from paligemma_lib.runtime.bounds import real


def checked_loss(what: str, label_smoothing: float, z_loss: float) -> tuple[float, float]:
    """Returns both as floats; raises ValueError unless 0 <= label_smoothing < 1 and z_loss >= 0."""
    smoothing = real(f"{what}: label_smoothing", label_smoothing, least=0, below=1)
    return smoothing, real(f"{what}: z_loss", z_loss, least=0)
