"""Published figures and tables, computed again: `python -m mbdl_course reproduce [NAME...]`.

One `Entry` for each that a chapter compares with a paper: a study for `evaluate.sweep`, a quick
size for two cores and the published one, and what the paper gives.
"""

from . import arrays, receivers, sparse, tracking
from .entry import Entry, Scale, compared, figure, run, told

__all__ = ["ENTRIES", "Entry", "Scale", "compared", "figure", "run", "told"]

ENTRIES = {**sparse.ENTRIES, **tracking.ENTRIES, **arrays.ENTRIES, **receivers.ENTRIES}
