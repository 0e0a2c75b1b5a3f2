"""Divides a batch among devices, and the rows of each device into microbatches.

number_of_parts(8, devices=1, microbatches=4)       # 4, of two rows
number_of_parts(8, devices=4, microbatches=4)       # 2, of one row on each device
"""


def number_of_parts(batch_size: int, devices: int, microbatches: int) -> int:
    """Returns how many parts of a batch are computed one after the other.

    They are `microbatches`, but no more than a device has rows: so a config that fits one device
    computes no more rows at a time on several.

    Raises:
      ValueError: a device, or a part on a device, would get fewer rows than another.
    """
    rows = batch_size // devices
    parts = max(1, min(microbatches, rows))
    if batch_size % devices or batch_size % microbatches or rows % parts:
        raise ValueError(
            f"batch_size={batch_size} cannot be divided among {devices} devices and "
            f"{microbatches} microbatches: use a multiple of {devices * microbatches}"
        )
    return parts
