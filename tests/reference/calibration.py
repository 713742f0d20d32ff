"""Brier score and expected calibration error by scikit-learn and netcal, for src/measure/calibration.rs."""

import numpy as np
from netcal.metrics import ECE
from sklearn.metrics import brier_score_loss

i = np.arange(1, 401)
p = (7919 * i % 1000) / 1000
right = (104729 * i % 997) / 997 < p * p
print("BRIER", repr(brier_score_loss(right, p)))
print("ECE", repr(ECE(15).measure(p, right.astype(int))))
