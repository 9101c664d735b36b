"""What a specification holds, what is wrong, what reading it costs, and what to change.

Nothing is printed and nothing is written here: ``hepfeed check`` shows the findings.
"""

from hepfeed.check.reports import ClassReport, KeyReport, KeyStorage, ReadCost, SpecReport
from hepfeed.check.specification import check_spec

__all__ = ["ClassReport", "KeyReport", "KeyStorage", "ReadCost", "SpecReport", "check_spec"]
