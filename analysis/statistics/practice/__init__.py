"""What a practitioner asks of a sweep: how to choose β, what noise hides, whether gold is bought with length.

Everything here is about trained policies (last checkpoints) and their samples on the evaluation prompts.
"""

from analysis.statistics.practice.study import Practice, study_practice

__all__ = ["Practice", "study_practice"]
