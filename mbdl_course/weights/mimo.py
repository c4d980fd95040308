"""Recipes of chapter 14: detectors unfolded from an algorithm, and DeepSIC for 32 users."""

from itertools import repeat

import torch
from torch import nn

from mbdl_course.evaluate import nmse_db
from mbdl_course.fold import last
from mbdl_course.learn import Stage, draws, seeded, squared_error, training
from mbdl_course.mimo import (
    GAUSSIAN,
    POISSON,
    SATURATED,
    SQUARE_LAW,
    DeepSIC,
    DetNet,
    Layers,
    OAMPNet,
    Received,
    ber,
    decaying,
    end_to_end,
    every_layer,
    rayleigh,
    sequentially,
    soft_interference_cancellation,
    symbols,
    uncertain,
    variance,
)

from .common import SEEDS, TEST_SEED, File, said

USERS, ANTENNAS, MANY = 10, 20, 32  # a new channel for each vector; one channel for many users
SNR_DB = 10.0  # of the test sets
SIZES = (200, 500, 1000, 5000)  # n_train; below, the steps: sequential ones of each iteration
STEPS = {"sequential": (100, 100, 200, 300), "end_to_end": (300, 300, 900, 1500)}


def scattered(count, generator, snr_db=None, antennas=ANTENNAS, users=USERS):
    """(Received, s) with a new channel for each vector; the SNR as given, or anew from 7 to 14 dB.

    It is drawn evenly in 1/σ², not in dB, as DetNet's authors do.
    """
    low, high = 10**0.7, 10**1.4
    ratio = low + (high - low) * torch.rand(count, 1, 1, generator=generator)
    snr_db = 10 * ratio.log10() if snr_db is None else torch.full_like(ratio, snr_db)
    H = rayleigh(count, antennas, users, generator=generator)
    s = symbols(count, users, 1, generator=generator)
    w = torch.randn(count, antennas, 1, generator=generator)
    return Received(GAUSSIAN.observed(s, H, w, snr_db), H, variance(snr_db)), s


def pilots(count, generator, snr_db=None, users=MANY):
    """(x, s) of as many antennas as users over one decaying channel; 6 to 12 dB unless given."""
    s = symbols(count, users, 1, generator=generator)
    w = torch.randn(count, users, 1, generator=generator)
    any_db = 6 + 6 * torch.rand(count, 1, 1, generator=generator)
    snr_db = any_db if snr_db is None else snr_db
    return GAUSSIAN.observed(s, decaying(users, users), w, snr_db), s


# ---- What the chapter compares on ---------------------------------------------------------------

CHANNELS = {
    "Gaussian": GAUSSIAN, "saturated": SATURATED, "square law": SQUARE_LAW, "Poisson": POISSON
}  # fmt: skip
LAWS = {"saturated": 12.0, "square law": 16.0, "Poisson": 28.0}  # SNR in dB


def frames(count, seed, snrs=4, error=0.1, users=4):
    """Symbols s and noise w (count, snrs, 1, seeds, users, 1), and beliefs of the decaying H, wrong
    by `error` anew for every 500 vectors. The 1 is for several training sets."""
    g, shape = seeded(seed), (snrs, 1, len(SEEDS), users)
    z = torch.randn(count // 500, *shape, users, generator=g)
    s = symbols(count, *shape, 1, generator=g)
    believed = uncertain(decaying(users, users), error, z).repeat_interleave(500, 0)
    return s, torch.randn(s.shape, generator=g), believed


def through(count, seed, users=4):
    """(x, s) of the LAWS, (count, law, seeds, users, 1), for the decaying channel."""
    g = seeded(seed)
    s = symbols(count, len(SEEDS), users, 1, generator=g)
    w = torch.randn(s.shape, generator=g)
    H = decaying(users, users)
    xs = [CHANNELS[law].observed(s, H, w, snr_db) for law, snr_db in LAWS.items()]
    return torch.stack(xs, 1), s[:, None].expand(-1, len(LAWS), -1, -1, -1)


def laboratory(channel, snr_db, n_train, error, users=4):
    """Pilots (x, s), with a wrong H for every 500 of them, and 2,000 test pairs with the true H.

    Moving a control moves the same draw.
    """
    g, H = seeded(1470), decaying(users, users)
    beliefs = uncertain(H, error, torch.randn(10, users, users, generator=g)).abs()  # as H is
    each = beliefs.repeat_interleave(500, 0)[:n_train]
    pairs = []
    for count, channels in ((5000, each), (2000, H)):
        s = symbols(count, users, 1, generator=g)
        w = torch.randn(count, users, 1, generator=g)
        s, w = (v[:n_train] if count == 5000 else v for v in (s, w))
        pairs.append((CHANNELS[channel].observed(s, channels, w, snr_db), s))
    return pairs


def sic(x, H, variance, depth=5):
    """The log-odds after some iterations of soft interference cancellation."""
    return last(soft_interference_cancellation(x, H, repeat((variance,), depth)))


def soft_error(network, data):
    """NMSE in dB of the soft symbols."""
    with torch.no_grad():
        return nmse_db(network(data[0]), data[1]).item()


def soft_odds_error(network, data):
    """NMSE in dB of the soft symbols tanh(log-odds/2)."""
    return soft_error(lambda x: torch.tanh(network(x) / 2), data)


def rates(families, data):
    """The bit error rate of each seed on the test set: {part: values}."""
    with torch.no_grad():
        return {
            name: [round(ber(family[name](data[0]), data[1]).item(), 6) for family in families]
            for name in families[0]
        }


def detector(network, stage, loss, seed, trained=None, source=None):
    """The network, trained on fresh channels."""
    source = source or draws(scattered, 500, seed)
    for _ in training(trained or network, source, loss, [stage]):
        pass
    return network


def mimo_unfolded():
    """DetNet and OAMP-Net, each from its algorithm on, for any channel of their size."""
    families = []
    for seed in SEEDS:
        net = DetNet(USERS, 10, generator=seeded(seed + 100))
        detector(net, Stage(12_000, 2e-3), every_layer, seed, Layers(net))
        oampnet = detector(OAMPNet(5), Stage(200, 3e-2), squared_error, seed)
        families.append(nn.ModuleDict({"detnet": net, "oampnet": oampnet}))
    problem = "10 users, 20 antennas, Gaussian channels, 7 to 14 dB; tested at 10 dB"
    facts = said(problem, "fresh", "12,000 (DetNet), 200 (OAMP-Net); batch 500")
    return families, facts | {"ber_by_seed": rates(families, scattered_test())}


def detnet_large():
    """DetNet for 30 users and 60 antennas, as large as published, its layers tied. One seed."""
    seed = SEEDS[0]
    net = blank_large(seeded(seed + 100))
    source = draws(large, 200, seed)
    detector(net, Stage(8000, 2e-3), every_layer, seed, Layers(net), source)
    problem = "30 users, 60 antennas, Gaussian channels, 7 to 14 dB; tested at 10 dB"
    found = rates([{"detnet_large": net}], large_test())
    return [net], said(problem, "fresh", "8,000; batch 200") | {"ber_by_seed": found}


def deepsic_many():
    """DeepSIC for 32 users, trained iteration by iteration on 5,000 pilots."""
    families = []
    for seed in SEEDS:
        model = blank_many(seeded(seed + 100))
        for _ in sequentially(model, *pilots(5000, seeded(seed)), steps=300, seed=seed + 200):
            pass
        families.append(model)
    data = many_test()
    facts = said("32 users, 32 antennas, H = exp(−|i − j|), 6 to 12 dB", 5000, "3 x 300; batch 128")
    found = rates([{"deepsic_many": model} for model in families], data)
    return families, facts | {"ber_by_seed": found}


def deepsic_sizes():
    """DeepSIC for 4 users, from 200 to 5,000 pilots, trained sequentially and end to end."""
    families = []
    for seed in SEEDS:
        x, s = pilots(SIZES[-1], seeded(seed), SNR_DB, users=4)
        models = blank_sizes(seed + 100)
        for way, train in (("sequential", sequentially), ("end_to_end", end_to_end)):
            for n, steps in zip(SIZES, STEPS[way], strict=True):
                for _ in train(models[f"{way}_n{n}"], x[:n], s[:n], steps=steps, seed=seed + 200):
                    pass
        families.append(models)
    steps = ", ".join(f"{way} {steps}" for way, steps in STEPS.items())
    facts = said(
        "4 users, 4 antennas, H = exp(−|i − j|), 10 dB", list(SIZES), f"{steps}; batch 128"
    )
    return families, facts | {"ber_by_seed": rates(families, sizes_test())}


def blank_sizes(seed=0):
    names = [f"{way}_n{n}" for way in STEPS for n in SIZES]
    return nn.ModuleDict(
        {name: DeepSIC(4, 4, widths=(32, 16), generator=seeded(seed)) for name in names}
    )


def blank_unfolded():
    return nn.ModuleDict({"detnet": DetNet(USERS, 10), "oampnet": OAMPNet(5)})


def blank_large(generator=None):
    return DetNet(30, 12, generator=generator, tied=True)


def large(count, generator, snr_db=None):
    return scattered(count, generator, snr_db, 60, 30)


def blank_many(generator=None):
    return DeepSIC(MANY, MANY, 3, widths=(16, 8), generator=generator)


def scattered_test():
    return scattered(10_000, seeded(TEST_SEED), SNR_DB)


def large_test():
    return large(3000, seeded(TEST_SEED), SNR_DB)


def many_test():
    return pilots(5000, seeded(TEST_SEED), SNR_DB)


def sizes_test():
    return pilots(50_000, seeded(TEST_SEED), SNR_DB, users=4)


FILES = {
    "mimo_unfolded": File(mimo_unfolded, blank_unfolded, scattered_test, soft_error),
    "detnet_large": File(detnet_large, blank_large, large_test, soft_error),
    "deepsic_many": File(deepsic_many, blank_many, many_test, soft_odds_error),
    "deepsic_sizes": File(deepsic_sizes, blank_sizes, sizes_test, soft_odds_error),
}
