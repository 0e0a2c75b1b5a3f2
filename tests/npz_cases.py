"""`.npz` files, valid or not, for the tests of what is hostile."""

import io
import struct
import zipfile

import numpy as np

A = np.arange(600, dtype=np.float32).reshape(3, 200)
B = np.linspace(0, 1, 50, dtype=np.float16)


def npz(save=np.savez, **arrays):
    file = io.BytesIO()
    save(file, **(arrays or {"params/a": A, "params/b": B}))
    return bytearray(file.getvalue())


def npy(descr, shape, data=b""):
    text = f"{{'descr': {descr}, 'fortran_order': False, 'shape': {shape}}}\n".encode("latin1")
    return b"\x93NUMPY\x01\x00" + struct.pack("<H", len(text)) + text + data


def zipped(**members):
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w") as archive:
        for name, data in members.items():
            archive.writestr(f"{name}.npy", data)
    return file.getvalue()
