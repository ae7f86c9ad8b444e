"""Where the randomness of data comes from: one counter-based stream for each use of it.

A stream is named by (seed, purpose, epoch, index): the seed and purpose are the key of a Philox
generator, the epoch and index are the high words of its counter. So two streams never overlap,
any of them can be had without drawing the ones before it, and no order of work changes a number.
"""

from __future__ import annotations

import enum
import operator
from typing import Any

import numpy as np

from ..errors import UsageError
from ..random import Generator, bits

__all__ = ["Purpose", "check_epoch", "check_seed", "seed_from", "stream"]

_LIMIT = 1 << 64


class Purpose(enum.IntEnum):
    """What a stream of random numbers is for; each purpose is a key of its own.

    >>> int(Purpose.ORDER)
    1
    """

    ORDER = 1
    SPLIT = 2
    AUGMENT = 3
    WORKER = 4
    WINDOW = 5


def check_seed(seed: Any) -> int:
    """The seed as an int in [0, 2**64), or UsageError.

    >>> check_seed(7)
    7
    """
    return _word(seed, "seed")


def check_epoch(epoch: Any) -> int:
    """The epoch as an int in [0, 2**64), or UsageError.

    >>> check_epoch(3)
    3
    """
    return _word(epoch, "epoch")


def _word(value: Any, name: str) -> int:
    try:
        word = operator.index(value)
    except TypeError:
        raise UsageError(f"{name} must be an integer, but {value!r} was given") from None
    if not 0 <= word < _LIMIT:
        raise UsageError(f"{name} must be in [0, 2**64), but {word} was given")
    return word


def seed_from(generator: Any) -> int:
    """A seed drawn from a generator, Cartograd's or NumPy's, or an int itself.

    A seed once drawn is all that is kept, so the generator is never needed to resume.

    >>> import numpy as np
    >>> seed_from(np.random.default_rng(0)) == seed_from(np.random.default_rng(0))
    True
    """
    if isinstance(generator, np.random.Generator):
        return int(generator.integers(0, 1 << 63))
    if isinstance(generator, np.random.RandomState):
        return int(generator.randint(0, (1 << 63) - 1))
    if isinstance(generator, Generator):
        low, high = bits(2, generator=generator).tolist()
        return low | high << 32
    return check_seed(generator)


def stream(seed: int, purpose: Purpose, epoch: int = 0, index: int = 0) -> np.random.Generator:
    """The NumPy generator of (seed, purpose, epoch, index), always from its beginning.

    >>> a = stream(0, Purpose.ORDER, epoch=1).random()
    >>> a == stream(0, Purpose.ORDER, epoch=1).random(), a == stream(0, Purpose.ORDER).random()
    (True, False)
    """
    counter = np.array([0, index, epoch, 0], np.uint64)
    key = np.array([seed, purpose], np.uint64)
    return np.random.Generator(np.random.Philox(counter=counter, key=key))
