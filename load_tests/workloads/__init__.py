"""Seeded workloads per class: lengths, texts and sessions of several turns."""

from load_tests.workloads.lengths import Lengths
from load_tests.workloads.mix import deal, parse_mix
from load_tests.workloads.profiles import PROFILES, Profile
from load_tests.workloads.sessions import Limits, Session, Sessions

__all__ = ["PROFILES", "Lengths", "Limits", "Profile", "Session", "Sessions", "deal", "parse_mix"]
