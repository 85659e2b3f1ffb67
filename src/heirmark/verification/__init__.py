"""Verification: ask a suspect a key's queries, and say what the answers prove."""

from heirmark.results.flags import FLAGS
from heirmark.results.verdict import OUTCOMES, Calibration, Verdict
from heirmark.verification.among import Decoys, RankVerdict, verify_rank
from heirmark.verification.calibrating import calibrate
from heirmark.verification.certifying import DrawnVerdict, verify_drawn
from heirmark.verification.many import Together, e_bh, holm
from heirmark.verification.sequential import SequentialVerdict, verify_sequentially
from heirmark.verification.suspects import Suspect
from heirmark.verification.verify import verify
from heirmark.verification.wilcoxon import WilcoxonResult, verify_wilcoxon

__all__ = [
    "FLAGS",
    "OUTCOMES",
    "Calibration",
    "Decoys",
    "DrawnVerdict",
    "RankVerdict",
    "SequentialVerdict",
    "Suspect",
    "Together",
    "Verdict",
    "WilcoxonResult",
    "calibrate",
    "e_bh",
    "holm",
    "verify",
    "verify_drawn",
    "verify_rank",
    "verify_sequentially",
    "verify_wilcoxon",
]
