"""Model-based deep learning, as a course.

Every method here is an algorithm that takes steps. The step is written once, as a pure function,
and folded over what arrives; a strategy is only a value. The same parameters for ever: the
model-based method. The same parameters K times, learned end to end: a learned optimizer. Parameters
of its own for each layer: an unfolded network. One slot of the step filled by a network: a
DNN-aided method. So every learned method, at its initialisation or filled with the model's own
part, is the model-based method, state by state.

====================================  =======================================================
chapter                               module
====================================  =======================================================
00 Start here                         ``sparse``, ``widgets``
03 Sparse recovery                    ``sparse``, ``prox``, ``operators``
04 Learning to optimize               ``sparse``, ``unfold``, ``learn``
05 Unrolling in theory                ``sparse``, ``equilibrium``, ``euler``, ``kalman_training``
06 Robust PCA                         ``lowrank``, ``prox``
09 The Kalman filter                  ``tracking``, ``smoothing``
10 KalmanNet                          ``tracking``
11 Neural augmentation                ``smoothing``
13 Direction of arrival               ``doa``
14 MIMO detection                     ``mimo``
15 Channels with memory               ``equalize``
19 At scale                           ``scaling``, ``evaluate``, ``reproduce``
====================================  =======================================================

Under all chapters: ``fold`` (the loop), ``prox``, ``operators``; ``unfold``, ``networks``,
``learn``, ``evaluate``, ``datasets``; ``show`` and ``widgets`` draw; ``exercises`` checks.
``python -m mbdl_course doctor`` says whether the course will run, ``reproduce`` computes published
figures again.
"""

__version__ = "0.1.0"
