"""Knowing without labels: which of several networks is best on footage, and how sure that is. NumPy alone."""

from rtda_training.judge.answers import Candidate
from rtda_training.judge.ranking import Ranked, Ranking, rank

__all__ = ["Candidate", "Ranked", "Ranking", "rank"]
