"""What every recipe shares: the seeds, the training, and what a shipped file consists of."""

from collections.abc import Callable
from typing import NamedTuple

import torch

from mbdl_course import evaluate, learn
from mbdl_course.learn import seeded, squared_error, training

# No two streams of random numbers share a seed: signals that repeat the numbers H was drawn from
# are correlated with it, and cost the trained networks 1.5 dB.
SEEDS = range(100, 105)  # of training; a network's own first weights are drawn from seed + 100
MATRIX_SEED, TEST_SEED, VALIDATION_SEED = 1000, 1001, 1002


def nmse_db(predict, data):
    """The NMSE in dB, a ratio of sums, of predict(x) against s for data (x, s)."""
    with torch.no_grad():
        return evaluate.nmse_db(predict(data[0]), data[1]).item()


class File(NamedTuple):
    """A shipped weight file: all that is needed to make it, to load it and to check it.

    train() -> ([the model of each seed, the shipped one first], what the manifest says of it);
    blank() -> a model of the same shapes, to be filled; test_set() -> the fixed data (x, s);
    figure(network, data) -> what it reaches there.
    """

    train: Callable
    blank: Callable
    test_set: Callable
    figure: Callable = nmse_db


def fitted(model, source, stages, validation, every=50, checkpoint=None, error=nmse_db):
    """The model trained to the end, at its best validated state."""
    for _ in training(
        model, source, squared_error, stages,
        validate=lambda predict: error(predict, validation), every=every, checkpoint=checkpoint,
    ):  # fmt: skip
        pass
    return model


def training_set(draw, n_train, seed):
    """n_train pairs to fit and a quarter more to stop by: another seed, another set."""
    generator = seeded(seed)
    return draw(n_train, generator), draw(max(n_train // 4, 5), generator)


def values(network):
    """The numbers of an unfolded network's layers, a list of tuples: θ for another filling."""
    return [
        tuple(v.item() for v in theta if isinstance(v, torch.Tensor) and v.ndim == 0)
        for theta in network.thetas
    ]


def checkpoint(name):
    """Where an interrupted recipe goes on: beside the weights, ignored by git."""
    return learn.weights_dir() / f"{name}.checkpoint"


def said(problem, n_train, steps):
    """What a recipe says of itself in the manifest."""
    return {"problem": problem, "n_train": n_train, "steps": steps}
