"""A count sketch (Charikar, Chen and Farach-Colton 2002): any number of values in 64 sums that tell two tensors apart.

Value i is added to one sum, or subtracted from it; which, a hash of i says. The Euclidean norm of a sketch estimates
that of the values, to about 1/8 of it, and sketches subtract like values: so the distance of two sketches estimates the
distance of two tensors, whatever it is that differs, a swapped pair of channels or the order of an axis included.
"""

import numpy as np
from numpy.typing import ArrayLike, NDArray

SUMS = 64


def sketch(values: ArrayLike) -> NDArray[np.float64]:
    """(64) of values of any shape, counted in row-major order, the last axis fastest."""
    flat = np.asarray(values, np.float64).reshape(-1)
    hashes = mixed(np.arange(flat.size, dtype=np.uint32))
    signed = np.where(hashes & np.uint32(SUMS), -flat, flat)
    return np.bincount(hashes % np.uint32(SUMS), signed, SUMS).astype(np.float64, copy=False)


def mixed(numbers: NDArray[np.uint32]) -> NDArray[np.uint32]:
    """The last step of MurmurHash3 (Appleby): any bit of a number changes half of the bits; all is modulo 2^32."""
    for shift, factor in ((16, 0x85EBCA6B), (13, 0xC2B2AE35), (16, 1)):
        numbers = (numbers ^ (numbers >> np.uint32(shift))) * np.uint32(factor)
    return numbers
