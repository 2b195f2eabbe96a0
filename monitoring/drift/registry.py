"""Every batch detector. A new one is a file and a line here; the contract suite runs it on both engines."""

from monitoring.drift.base import Detector
from monitoring.drift.detectors.calibration import Calibration
from monitoring.drift.detectors.chi_square import ChiSquare
from monitoring.drift.detectors.coverage import Coverage
from monitoring.drift.detectors.ctr_by_position import CtrByPosition
from monitoring.drift.detectors.ctr_by_score import CtrByScore
from monitoring.drift.detectors.cvm import CramerVonMises
from monitoring.drift.detectors.ks import KolmogorovSmirnov
from monitoring.drift.detectors.lsdd import DensityDifference
from monitoring.drift.detectors.missing import Missing
from monitoring.drift.detectors.mmd import MaximumMeanDiscrepancy
from monitoring.drift.detectors.out_of_range import OutOfRange
from monitoring.drift.detectors.paired_cosine import PairedCosine
from monitoring.drift.detectors.popularity import Popularity
from monitoring.drift.detectors.psi import PopulationStability
from monitoring.drift.detectors.slice_error import SliceError
from monitoring.drift.detectors.slice_slope import SliceSlope
from monitoring.drift.detectors.sources import SourceShares
from monitoring.drift.detectors.unseen import Unseen
from monitoring.drift.detectors.vanished import Vanished

DETECTORS: dict[str, Detector] = {
    # inputs
    "ks": KolmogorovSmirnov(),
    "cvm": CramerVonMises(),
    "psi": PopulationStability(),
    "chi_square": ChiSquare(),
    "missing": Missing(),
    "unseen": Unseen(),
    "vanished": Vanished(),
    "out_of_range": OutOfRange(),
    "mmd": MaximumMeanDiscrepancy(),
    "lsdd": DensityDifference(),
    "paired_cosine": PairedCosine(),
    # outputs
    "popularity": Popularity(),
    "coverage": Coverage(),
    "sources": SourceShares(),
    "ctr_by_position": CtrByPosition(),
    # concept
    "ctr_by_score": CtrByScore(),
    "calibration": Calibration(),
    "slice_error": SliceError(),
    "slice_slope": SliceSlope(),
}
