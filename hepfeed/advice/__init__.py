"""What to expect of a specification on a machine, and what would be faster: ``hepfeed check --advice``."""

from hepfeed.advice.advisor import advise
from hepfeed.advice.report import Advice, Choice

__all__ = ["Advice", "Choice", "advise"]
