"""Which pictures make up each batch of an epoch, at which size, and the loader that turns them into tensors.

Everything follows from the seed, the epoch and the picture's index, so that neither the number of processes nor that of
workers nor an interruption changes what a picture looks like or which batch it is in.
"""

from collections.abc import Callable, Iterable, Iterator, Sequence
from math import gcd
from typing import Any, NamedTuple, Protocol

import numpy as np
import torch
from torch import Generator, Tensor
from torch.utils.data import DataLoader, Dataset

from dmf.training.data import Examples, UnreadableImage
from runtime.errors import UsageError

Transform = Callable[..., Any]  # as `Examples.sample` calls it
UNREADABLE_IN_A_ROW = 100  # then it is not a broken file but, say, a disk that went away


class Batches(Protocol):
    """This process' batches of `epoch`, each a list of (index of the picture, size in px)."""

    epoch: int

    def __len__(self) -> int: ...

    def __iter__(self) -> Iterator[list[tuple[int, int]]]: ...


class MultiScaleBatches:
    """Shuffled batches for training, each of one size drawn from `sizes`, more pictures where they are smaller.

    `batch_size` is one process' at `image_size`; at another size it is scaled by (image_size / size)^2 and rounded.
    All `world` processes together get the pictures that a single one would get at the same step with a batch `world`
    times as large, each an equal share. For this the joint batch is rounded to a multiple of 8, if at `image_size` it
    is one, or else of 4 or 2, whatever `world` is; only a `world` that doesn't divide that unit is its own unit.

    No picture comes twice in an epoch. What is too few for the last step is dropped, others in each epoch.
    """

    def __init__(
        self, count: int, batch_size: int, image_size: int, sizes: Sequence[int], seed: int, rank: int, world: int
    ) -> None:
        """UsageError: `count` pictures are fewer than one joint batch."""
        self.count, self.seed, self.rank, self.world, self.sizes = count, seed, rank, world, tuple(sizes)
        joint = batch_size * world
        unit = gcd(joint, 8) if gcd(joint, 8) % world == 0 else world
        self._joint = {size: unit * max(1, round(joint * (image_size / size) ** 2 / unit)) for size in self.sizes}
        if count < (largest := max(self._joint.values())):
            smallest = min(self.sizes)
            raise UsageError(
                f"{count} training pictures are fewer than one batch of {largest} at {smallest} x {smallest} px; "
                "make the batch smaller"
            )
        self.set_epoch(0)

    def set_epoch(self, epoch: int) -> None:
        """Draw the order and the sizes of an epoch, the same in every process."""
        self.epoch = epoch
        rng = np.random.default_rng([self.seed, epoch])
        self._order: list[int] = rng.permutation(self.count).tolist()
        self._steps: list[tuple[int, int]] = []  # where in the order the step's joint batch begins, its size in px
        begin = 0
        while begin + self._joint[size := self.sizes[rng.integers(len(self.sizes))]] <= self.count:
            self._steps.append((begin, size))
            begin += self._joint[size]

    def __len__(self) -> int:
        """The batches of the epoch that is set: the sizes drawn, and so their number, differ between epochs."""
        return len(self._steps)

    def __iter__(self) -> Iterator[list[tuple[int, int]]]:
        for begin, size in self._steps:
            share = self._joint[size] // self.world
            begin += self.rank * share
            yield [(index, size) for index in self._order[begin : begin + share]]


class InOrder:
    """Batches for evaluation: every picture once in all processes together, in order, the last batch as it comes."""

    epoch = 0

    def __init__(self, count: int, batch_size: int, size: int, rank: int = 0, world: int = 1) -> None:
        mine = range(rank, count, world)
        self._batches = [[(i, size) for i in mine[k : k + batch_size]] for k in range(0, len(mine), batch_size)]

    def __len__(self) -> int:
        return len(self._batches)

    def __iter__(self) -> Iterator[list[tuple[int, int]]]:
        return iter(self._batches)


class Sample(NamedTuple):
    """What `Examples.sample` gave, or None and the first reason in `unreadable`."""

    content: tuple[Tensor, Any] | None
    unreadable: dict[str, str]


class Samples(Dataset[Sample]):
    """(index, size) -> Sample. An unreadable picture is replaced by the next one, or None if not `replace`."""

    def __init__(self, examples: Examples, transform: Transform, seed: int, epoch: int, replace: bool) -> None:
        self.examples, self.transform, self.seed, self.epoch, self.replace = examples, transform, seed, epoch, replace

    def __getitem__(self, item: tuple[int, int]) -> Sample:
        index, size = item
        unreadable: dict[str, str] = {}
        for step in range(min(UNREADABLE_IN_A_ROW, len(self.examples)) if self.replace else 1):
            at = (index + step) % len(self.examples)
            generator = generator_of(self.seed, self.epoch, index)
            try:
                return Sample(self.examples.sample(at, self.transform, size, generator), unreadable)
            except UnreadableImage as error:
                unreadable[error.path] = str(error)
                if not self.examples.skip_unreadable:
                    break
        return Sample(None, unreadable)

    def collate(self, samples: list[Sample]) -> tuple[tuple[Tensor, Any] | None, dict[str, str], int]:
        """-> the batch if it has any image, the unreadable files, how many samples have no image"""
        found = [sample.content for sample in samples if sample.content is not None]
        unreadable = {path: reason for sample in samples for path, reason in sample.unreadable.items()}
        return self.examples.batch(found) if found else None, unreadable, len(samples) - len(found)


def generator_of(seed: int, epoch: int, index: int) -> Generator:
    """What all random choices about one picture in one epoch are drawn from."""
    state = np.random.SeedSequence([seed, epoch, index]).generate_state(1, np.uint64)
    return Generator().manual_seed(int(state[0]))


def loader(
    examples: Examples,
    transform: Transform,
    batches: Batches,
    seed: int,
    workers: int,
    start: int = 0,
    replace: bool = True,
) -> Iterable[tuple[Tensor, Any]]:
    """The batches of one epoch from number `start` on, as `examples.batch` makes them.

    Where `examples.skip_unreadable`, an unreadable picture is replaced by the next readable one, or left out if not
    `replace` (in an evaluation, which must count none twice), and named in `examples.skipped`. UsageError, while it is
    iterated: a picture that is unreadable and must not be, or `UNREADABLE_IN_A_ROW` with none readable between them.
    """
    samples = Samples(examples, transform, seed, batches.epoch, replace)
    loaded: DataLoader[Sample] = DataLoader(
        samples,
        batch_sampler=list(batches)[start:],
        num_workers=workers,
        collate_fn=samples.collate,
        pin_memory=torch.cuda.is_available(),
        generator=Generator(),  # or else each epoch draws from the global one, from which dropout draws
    )
    for batch, unreadable, missing in loaded:
        # raised here since an error raised in a worker arrives as a traceback in a string
        if unreadable and not examples.skip_unreadable:
            raise UsageError(next(iter(unreadable.values())))
        examples.skipped.update(unreadable)
        if missing and replace:
            raise UsageError(f"{missing} times no picture could be read, last: {list(unreadable.values())[-1]}")
        if batch is not None:
            yield batch
