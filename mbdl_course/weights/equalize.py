"""Recipes of chapter 15: black boxes, which need too much training to make them live."""

import torch
from torch import nn

from mbdl_course.equalize import (
    SlidingRNN,
    cross_entropy,
    exponential,
    gaussian,
    received,
    sent,
    ser,
    windows,
)
from mbdl_course.learn import Stage, seeded, training

from .common import SEEDS, TEST_SEED, File, said

PILOTS, BOXES = (500, 5_000, 50_000), 5  # of each box; boxes, each with pilots of its own
SNR_DB = 8.0


def blocks(count, seed):
    """`count` blocks of 250 symbols for each of the five boxes: γ = 0.5, memory 4, 8 dB."""
    z = sent(250, (BOXES, count), 4, seeded(seed))
    return received(gaussian(SNR_DB), exponential(0.5), z), z.s


def black_boxes():
    return nn.ModuleDict({f"n{n}": SlidingRNN((BOXES,)) for n in PILOTS})


def black_boxes_trained():
    model = nn.ModuleDict()
    for k, n in enumerate(PILOTS):
        seed = SEEDS[0] + 10_000 * (k + 1)
        (x, s), (x_held, s_held) = blocks(n // 250, seed), blocks(max(n // 1000, 1), seed + 1)
        model[f"n{n}"] = box = SlidingRNN((BOXES,), generator=seeded(seed + 2))

        def held_out(predict, x=x_held, s=s_held):
            return cross_entropy(predict(x), s).item()

        source = windows(x, s, box.window, 100, seed + 3)
        stages = [Stage(1500, 1e-2)]
        for _ in training(box, source, cross_entropy, stages, held_out, every=50, clip=5.0):
            pass
    return [model], said(
        "γ = 0.5, memory 4, 8 dB; five boxes of each size", PILOTS[-1], "1,500 of 100 windows"
    )


def log_ser(network, data):
    """10 log10 of the symbol error rate, all boxes together."""
    with torch.no_grad():
        return 10 * ser(network(data[0]).argmax(-1), data[1]).rate.mean().log10().item()


FILES = {
    "sliding_rnn": File(
        black_boxes_trained, black_boxes, lambda: blocks(160, TEST_SEED + 20_000), log_ser
    )
}
