"""Kalman filter and Rauch-Tung-Striebel smoother of many trajectories against other libraries.

    python benchmarks/tracking_speed.py

The linear canonical model of two states, r² = 1, q² = 0.01, 100 steps, float64; all start at a
state that is known to be zero before the first step, so that all estimates agree. filterpy and
statsmodels take trajectories one by one, timed on at most 40 of them; dynamax, compiled, takes all
at once (it is no part of the environment).
"""

from functools import partial

import numpy as np
import torch
from run import main
from timing import Job, Pair

from mbdl_course.fold import last
from mbdl_course.learn import seeded
from mbdl_course.smoothing import rts
from mbdl_course.tracking import (
    Belief,
    canonical,
    filtered,
    history,
    riccati,
    simulated,
    steady,
    white,
)

MODEL = canonical(2, 0.01, 1.0)
START = Belief(torch.zeros(2, 1, dtype=torch.float64), torch.zeros(2, 2, dtype=torch.float64))


def ours(x, smoothed, gain=riccati):
    """The estimates of a smoother (T, ..., 2, 1), or of a filter after the last step."""
    with torch.inference_mode():  # as the peers, without gradients
        beliefs = filtered(x, MODEL, gain(MODEL), START)
        return rts(history(beliefs)).s if smoothed else last(beliefs).s


def filterpy(smoothed):
    from filterpy.kalman import KalmanFilter

    F, H, Q, R = (part.numpy() for part in MODEL)

    def one(z):
        kf = KalmanFilter(dim_x=2, dim_z=2)
        kf.x, kf.P = START.s.numpy(), START.Sigma.numpy()
        kf.F, kf.H, kf.Q, kf.R = F, H, Q, R
        if smoothed:
            means, covariances, _, _ = kf.batch_filter(z)
            return kf.rts_smoother(means, covariances)[0]
        for each in z:
            kf.predict()
            kf.update(each)
        return kf.x

    return one


def statsmodels(smoothed):
    from statsmodels.tsa.statespace.kalman_smoother import KalmanSmoother

    F, H, Q, R = (part.numpy() for part in MODEL)
    known = {"transition": F, "design": H, "state_cov": Q, "obs_cov": R, "selection": np.eye(2)}

    def one(z):  # a second series bound to the same object would not be seen
        kf = KalmanSmoother(k_endog=2, k_states=2, **known)
        kf.initialize_known(np.zeros(2), Q)  # of the first state, not of the one before
        kf.bind(z[..., 0].copy())
        if smoothed:
            return kf.smooth().smoothed_state.T[..., None]
        return kf.filter().filtered_state[:, -1:]

    return one


def one_by_one(peer, count, smoothed, tiny):
    count, few = (3, 2) if tiny else (count, min(count, 40))
    x, _ = simulated(MODEL, START, white(10 if tiny else 100, count, MODEL, seeded(0)))
    one, some = peer(smoothed), [trajectory.numpy() for trajectory in x[:, :few].unbind(1)]

    def theirs():
        return torch.from_numpy(np.stack([one(z) for z in some], -3))

    def apart(a, b):
        return (a[..., :few, :, :] - b).abs().max().item()

    return Job(partial(ours, x, smoothed), theirs, apart, 1e-8, count / few)


def dynamax(count, smoothed, tiny):
    import jax
    from dynamax.linear_gaussian_ssm import lgssm_filter, lgssm_smoother
    from dynamax.linear_gaussian_ssm.inference import make_lgssm_params

    jax.config.update("jax_enable_x64", True)
    x, _ = simulated(MODEL, START, white(100, 3 if tiny else count, MODEL, seeded(0)))
    F, H, Q, R = (jax.numpy.asarray(part.numpy()) for part in MODEL)
    params = make_lgssm_params(jax.numpy.zeros(2), Q, F, Q, H, R)  # of the first state

    def one(y):
        if smoothed:
            return lgssm_smoother(params, y).smoothed_means
        return lgssm_filter(params, y).filtered_means[-1]

    run, y = jax.jit(jax.vmap(one, -2, -2 if smoothed else 0)), jax.numpy.asarray(x[..., 0].numpy())

    def apart(a, b):
        return np.abs(a[..., 0].numpy() - np.asarray(b)).max()

    # it adds a little to what it inverts
    return Job(partial(ours, x, smoothed), lambda: run(y).block_until_ready(), apart, 1e-6)


def fixed(tiny):
    """The gain that the filter settles at, against the covariances of each step."""
    x, _ = simulated(MODEL, START, white(100, 3 if tiny else 200, MODEL, seeded(0)))
    apart = lambda a, b: (a - b).abs().max().item()  # noqa: E731
    return Job(partial(ours, x, False, steady), partial(ours, x, False), apart, 1e-3)


PAIRS = [
    *(Pair(f"tracking/{'smoother' if smoothed else 'filter'}-{peer.__name__}-{count}",
           peer.__name__, partial(one_by_one, peer, count, smoothed), peer.__name__)
      for smoothed in (False, True) for peer in (filterpy, statsmodels)
      for count in (1, 200, 1000)),
    *(Pair(f"tracking/{'smoother' if smoothed else 'filter'}-dynamax-{count}", "dynamax, compiled",
           partial(dynamax, count, smoothed), "dynamax")
      for smoothed in (False, True) for count in (1, 200, 1000)),
    Pair("tracking/steady-200", "ours, Riccati", fixed),
]  # fmt: skip

if __name__ == "__main__":
    main(["tracking"])
