"""The public names and where they are."""

from .actions import ACTIONS as ACTIONS
from .arbiter import Arbiter as Arbiter
from .detectors import (
    DETECTORS as DETECTORS,
    Detector as Detector,
    TripRule as TripRule,
    measurements as measurements,
)
from .guard import HackGuard as HackGuard
from .last_good import LastGood as LastGood
from .rules import RULES as RULES, Trip as Trip, Watch as Watch
