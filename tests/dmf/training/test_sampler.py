"""Batches and their loader: who gets which picture at which size, and that nothing but the seed decides what it is."""

import numpy as np
import pytest
import torch
from PIL import Image

from dmf.training import sampler
from dmf.training.augment import TrainTransform, eval_transform
from dmf.training.config import AugmentConfig, DataConfig
from dmf.training.data import load
from dmf.training.sampler import InOrder, MultiScaleBatches, generator_of, loader
from runtime.errors import UsageError

SIZES = (48, 64, 96)
AUGMENT = AugmentConfig(
    crop_scale=(0.5, 1.0), crop_ratio=(0.8, 1.25), rand_augment_ops=2, rand_augment_magnitude=9, erase=0.5
)


def batches(count=1000, batch_size=16, sizes=SIZES, seed=0, rank=0, world=1, epoch=0):
    made = MultiScaleBatches(count, batch_size, 64, sizes, seed, rank, world)
    made.set_epoch(epoch)
    return made


def indices(made):
    return [index for batch in made for index, _ in batch]


def test_an_epoch_has_every_picture_once():
    made = batches(count=992, sizes=(64,))
    assert len(made) == 62
    assert sorted(indices(made)) == list(range(992))
    assert indices(made) != list(range(992))
    for count in (993, 1007):  # what is too few for a batch is dropped, another picture each time
        dropped = [set(range(count)) - set(indices(batches(count=count, sizes=(64,), epoch=e))) for e in range(5)]
        assert {len(each) for each in dropped} == {count - 992}
        assert len(set(map(frozenset, dropped))) == 5
    multi = indices(batches())
    assert len(multi) == len(set(multi)) > 1000 - 16 * (64 / 48) ** 2 - 8


def test_the_batch_follows_the_resolution():
    found = {}
    for epoch in range(3):
        made = batches(count=20_000, batch_size=128, sizes=(32, 48, 64, 96), epoch=epoch)
        assert len(list(made)) == len(made)
        for batch in made:
            (size,) = {size for _, size in batch}
            found.setdefault(size, set()).add(len(batch))
    assert found.keys() == {32, 48, 64, 96}
    for size, counts in found.items():
        (count,) = counts
        assert abs(count - 128 * (64 / size) ** 2) <= 4  # to the nearest multiple of 8
        assert count == 128 or size != 64
    (tiny,) = {len(batch) for batch in batches(count=50, batch_size=1, sizes=(640,))}
    assert tiny == 1


def test_sizes_are_drawn_evenly_and_anew():
    steps = [
        [batch[0][1] for batch in batches(count=5000, seed=seed, epoch=epoch)] for seed in (0, 1) for epoch in (0, 1)
    ]
    drawn = np.concatenate(steps)
    for size in SIZES:
        share, error = (drawn == size).mean(), (2 / 9 / len(drawn)) ** 0.5
        assert abs(share - 1 / 3) < 4 * error
    assert all(a[:20] != b[:20] for i, a in enumerate(steps) for b in steps[:i])


def test_seed_and_epoch_alone_decide():
    first = list(batches(seed=3, epoch=2))
    later = batches(seed=3)
    later.set_epoch(5)
    later.set_epoch(2)
    assert list(later) == first == list(later)
    assert list(batches(seed=3, epoch=1)) != first != list(batches(seed=4, epoch=2))


@pytest.mark.parametrize(
    ("joint", "world"), [(32, 2), (32, 4), (32, 8), (8, 2), (6, 2), (12, 4), (48, 4), (1024, 8), (2, 2)]
)
def test_ranks_share_the_batch_of_one_process(joint, world):
    single = list(batches(count=4000, batch_size=joint))
    ranks = [list(batches(count=4000, batch_size=joint // world, rank=rank, world=world)) for rank in range(world)]
    assert {len(rank) for rank in ranks} == {len(single)}
    for whole, *parts in zip(single, *ranks, strict=True):
        assert [pair for part in parts for pair in part] == whole
        assert {len(part) for part in parts} == {len(whole) // world}
        assert set(parts[0]).isdisjoint(parts[1])
    swapped = list(batches(count=4000, batch_size=joint // world, rank=0, world=world, epoch=1))
    assert swapped[0] != ranks[0][0]


@pytest.mark.parametrize("world", [3, 5, 6, 16])
def test_any_number_of_ranks_has_equal_disjoint_shares(world):
    ranks = [list(batches(count=4000, batch_size=4, rank=rank, world=world)) for rank in range(world)]
    for parts in zip(*ranks, strict=True):
        assert len({len(part) for part in parts}) == 1
        assert len({size for part in parts for _, size in part}) == 1
    every = [index for rank in ranks for batch in rank for index, _ in batch]
    assert len(every) == len(set(every))


def test_too_few_pictures_for_a_batch():
    assert len(batches(count=32, batch_size=16, sizes=(64, 48))) >= 1
    with pytest.raises(UsageError, match=r"27 training pictures are fewer than one batch of 32 at 48 x 48 px; make"):
        batches(count=27, batch_size=16, sizes=(64, 48))


@pytest.mark.parametrize("world", [1, 2, 3])
def test_in_order_has_every_picture_once(world):
    ranks = [InOrder(10, 4, 64, rank, world) for rank in range(world)]
    found = [pair for rank in ranks for batch in rank for pair in batch]
    assert sorted(found) == [(i, 64) for i in range(10)]
    assert [len(list(rank)) for rank in ranks] == [len(rank) for rank in ranks]
    assert max(len(batch) for rank in ranks for batch in rank) <= 4
    assert indices(InOrder(10, 4, 64)) == list(range(10))


@pytest.fixture(scope="module")
def digits():
    return load(DataConfig(name="digits")).train


def loaded(images, made, workers=0, start=0, seed=0):
    return list(loader(images, TrainTransform(AUGMENT), made, seed, workers, start))


def same(a, b):
    return len(a) == len(b) and all(
        x.shape == u.shape and torch.equal(x, u) and torch.equal(y, v) for (x, y), (u, v) in zip(a, b, strict=True)
    )


def test_a_batch_is_its_pictures_and_labels(digits):
    made = batches(count=90)
    for (x, y), batch in zip(loaded(digits, made), made, strict=True):
        size = batch[0][1]
        assert x.shape == (len(batch), 3, size, size) and x.dtype == torch.float32
        assert y.dtype == torch.int64
        assert y.tolist() == [digits.labels[index] for index, _ in batch]
        expected = TrainTransform(AUGMENT)(digits.picture(batch[3][0]), size, generator_of(0, 0, batch[3][0]))
        assert torch.equal(x[3], expected)
        assert not torch.equal(x[2], expected)


def test_workers_and_the_start_change_nothing(digits):
    made = batches(count=90)
    whole = loaded(digits, made)
    assert same(loaded(digits, made, workers=2), whole)
    assert same(loaded(digits, made, start=2), whole[2:])
    assert same(loaded(digits, made, workers=1, start=2), whole[2:])
    assert not same(loaded(digits, made, seed=1), whole)
    assert not same(loaded(digits, batches(count=90, epoch=1)), whole)
    assert loaded(digits, made, start=len(made)) == []


def test_a_picture_looks_the_same_in_every_batch_of_an_epoch(digits):
    """The samples of two ranks are those of the single process."""
    single = loaded(digits, batches(count=90, batch_size=16))
    ranks = [loaded(digits, batches(count=90, batch_size=8, rank=rank, world=2)) for rank in (0, 1)]
    joined = [(torch.cat([a, b]), torch.cat([y, z])) for (a, y), (b, z) in zip(*ranks, strict=True)]
    assert same(joined, single)
    again = [(torch.cat([b, a]), torch.cat([z, y])) for (a, y), (b, z) in zip(*ranks, strict=True)]
    assert not same(again, single)


def test_every_epoch_augments_anew(digits):
    (x, _), *_ = loader(digits, TrainTransform(AUGMENT), InOrder(8, 8, 64), 0, 0)
    later = InOrder(8, 8, 64)
    later.epoch = 1
    (y, _), *_ = loader(digits, TrainTransform(AUGMENT), later, 0, 0)
    assert all(not torch.equal(a, b) for a, b in zip(x, y, strict=True))


def test_the_loader_draws_nothing_from_the_global_generator(digits):
    state = torch.get_rng_state()
    loaded(digits, batches(count=40))
    assert torch.equal(torch.get_rng_state(), state)
    torch.rand(1)
    assert not torch.equal(torch.get_rng_state(), state)


def test_done_batches_are_not_decoded(digits, monkeypatch):
    seen = []
    picture = digits.picture
    monkeypatch.setattr(digits, "picture", lambda index: seen.append(index) or picture(index))
    made = batches(count=90)
    loaded(digits, made, start=2)
    assert seen == indices(made)[len(indices(list(made)[:2])) :]


def test_generators_are_their_own():
    states = {(s, e, i): generator_of(s, e, i).initial_seed() for s in range(3) for e in range(3) for i in range(50)}
    assert len(set(states.values())) == len(states)
    assert generator_of(1, 2, 3).initial_seed() == states[1, 2, 3]


@pytest.fixture
def broken(tmp_path):
    """Twelve pictures of one grey each, 0, 10, 20, ..., of which 3, 4 and 11 can't be read."""
    for split in ("train", "val"):
        for i in range(12):
            path = tmp_path / split / "ab"[i // 6] / f"{i:02}.png"
            path.parent.mkdir(parents=True, exist_ok=True)
            Image.new("RGB", (40, 40), (10 * i, 10 * i, 10 * i)).save(path)
            if i in (3, 4, 11):
                path.write_bytes(path.read_bytes()[:-40] if i != 4 else b"no image")

    def make(unreadable="skip"):
        return load(DataConfig(name="folder", path=str(tmp_path), unreadable=unreadable)).train

    return make


def which(x):
    """The pictures that a batch shows, by their grey."""
    return ((x[:, 0].mean((1, 2)) * 0.229 + 0.485) * 25.5).round().int().tolist()


@pytest.mark.parametrize("workers", [0, 2])
def test_unreadable_files_are_replaced_named_and_counted(broken, workers):
    images = broken()
    found = list(loader(images, eval_transform, InOrder(12, 5, 32), 0, workers))
    assert [which(x) for x, _ in found] == [[0, 1, 2, 5, 5], [5, 6, 7, 8, 9], [10, 0]]
    assert [y.tolist() for _, y in found] == [[0, 0, 0, 0, 0], [0, 1, 1, 1, 1], [1, 0]]
    assert sorted(path[-6:] for path in images.skipped) == ["03.png", "04.png", "11.png"]
    assert all(path in reason and "not a whole image" in reason for path, reason in images.skipped.items())


def test_replacements_are_augmented_each_in_its_own_way(broken):
    def batch(transform):
        return next(iter(loader(broken(), transform, InOrder(12, 6, 32), 0, 0)))[0]

    assert torch.equal(batch(eval_transform)[3], batch(eval_transform)[5])  # both show picture 5
    assert not torch.equal(batch(TrainTransform(AUGMENT))[3], batch(TrainTransform(AUGMENT))[5])
    assert torch.equal(batch(TrainTransform(AUGMENT))[3], batch(TrainTransform(AUGMENT))[3])


@pytest.mark.parametrize("workers", [0, 2])
def test_in_an_evaluation_unreadable_files_are_left_out(broken, workers):
    images = broken()
    found = list(loader(images, eval_transform, InOrder(12, 1, 32), 0, workers, replace=False))
    assert [which(x)[0] for x, _ in found] == [0, 1, 2, 5, 6, 7, 8, 9, 10]
    assert len(images.skipped) == 3
    assert [len(y) for _, y in loader(images, eval_transform, InOrder(12, 6, 32), 0, 0, replace=False)] == [4, 5]


@pytest.mark.parametrize("workers", [0, 1])
def test_an_unreadable_file_is_fatal_unless_skipped(broken, workers):
    found = iter(loader(broken("fail"), eval_transform, InOrder(12, 3, 32), 0, workers))
    assert which(next(found)[0]) == [0, 1, 2]
    with pytest.raises(UsageError, match=r"train/a/03\.png: not a whole image: .*") as caught:
        next(found)
    assert "\n" not in str(caught.value)


def test_a_disk_that_went_away(broken, monkeypatch):
    images = broken()
    monkeypatch.setattr(sampler, "UNREADABLE_IN_A_ROW", 2)
    with pytest.raises(UsageError, match=r"1 times no picture could be read, last: .*04\.png"):
        list(loader(images, eval_transform, InOrder(12, 4, 32), 0, 0))
    monkeypatch.setattr(sampler, "UNREADABLE_IN_A_ROW", 3)
    assert len(list(loader(images, eval_transform, InOrder(12, 12, 32), 0, 0))) == 1
