"""Entry of chapter 13: directions of coherent sources, by a smoothed or a learned covariance."""

import torch

from mbdl_course import datasets
from mbdl_course.doa import (
    esprit,
    forward_backward,
    mean_rmspe,
    root_music,
    sample_covariance,
    smoothed,
    through,
)
from mbdl_course.fold import last
from mbdl_course.learn import Stage, batches, training
from mbdl_course.weights.doa import coherent, likely, published, surrogate

from .entry import Entry, Scale

MAKE = {"SubspaceNet": surrogate, "SubspaceNet, convolutions": published}


def subspacenet(seed, device, n_train, steps, batch, n_test, snr_db):
    """Three coherent sources in phase; networks trained at 10 dB on the same scenes."""

    def drawn(count, k, snr_db=10.0):  # the recipes use seed + 100 and seed + 200
        return [v.to(device) for v in coherent(count, seed + k, snr_db=snr_db)]

    scenes, held_out = drawn(n_train, 0), drawn(1000, 300)
    loss, nets = through(esprit), {}

    def held_error(predict):
        return loss(predict(held_out[0]), held_out[1])

    for name, count in steps.items():
        nets[name] = net = MAKE[name](seed).to(device)
        source = batches(*scenes, batch, seed + 200)
        stages = [Stage(count, 1e-3)]
        last(training(net, source, loss, stages, held_error, every=100, clip=1.0))
    x, doa = drawn(n_test, 400, snr_db)
    R = sample_covariance(x)
    with torch.no_grad():
        found = {
            "ESPRIT": esprit(R, 3),
            "Root-MUSIC": root_music(R, 3),
            "forward": esprit(smoothed(R, 5), 3),
            "forward–backward": esprit(smoothed(forward_backward(R), 6), 3),
            "maximum likelihood": likely(x),
        } | {name: esprit(net(x), 3) for name, net in nets.items()}
    return {name: mean_rmspe(doa_hat, doa) for name, doa_hat in found.items()}


def subspacenet_published(snr_db):
    peer = datasets.reference("doa")["reproduced"]
    return {name: at[[10, 20].index(snr_db)] for name, at in peer.items()}


ENTRIES = {
    "subspacenet": Entry(
        "SubspaceNet, three coherent sources, eight sensors, 100 snapshots (chapter 13)",
        "Shmuel, Merkofer, Revach, van Sloun, Shlezinger 2023, arXiv 2306.02271: public code and "
        "weights, reproduced on 200 scenes; forward–backward: our smoothing on these",
        subspacenet,
        Scale({"snr_db": [10, 20]}, 5, "5,000 scenes, 1,500 steps of 128; the dense network "
              "alone, the published one has convolutions; trained at 10 dB",
              {"n_train": 5000, "steps": {"SubspaceNet": 1500}, "batch": 128, "n_test": 1000}),
        Scale({"snr_db": [10, 20]}, 5, "100,000 scenes, 80 epochs of batches of 2,048, as "
              "published; trained at 10 dB (the public weights: at what their code calls 10 dB, "
              "20 dB here)",
              {"n_train": 100_000, "steps": dict.fromkeys(MAKE, 3920), "batch": 2048,
               "n_test": 1000}),
        subspacenet_published,
        {"ESPRIT": "observation", "Root-MUSIC": "IHT", "forward": "ADMM",
         "forward–backward": "FISTA", "maximum likelihood": "model-based",
         "SubspaceNet": "DNN-aided", "SubspaceNet, convolutions": "learned"},
        "mean RMSPE, rad",
        log=True,
    ),
}  # fmt: skip
