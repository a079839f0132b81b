"""The public names and where they are."""

from .detectors import DETECTORS as DETECTORS, Detector as Detector, measurements as measurements
from .guard import ACTIONS as ACTIONS, HackGuard as HackGuard
from .last_good import LastGood as LastGood
from .rules import RULES as RULES, Arbiter as Arbiter, Rule as Rule, Trip as Trip, Watch as Watch
