"""Studies: the runs of all arms, made as they are missing. Figures and report are in `imdn_kd.evaluation.study`."""

from imdn_kd.study.plan import Run, Study, read_study
from imdn_kd.study.work import check_study, run_study

__all__ = ["Run", "Study", "check_study", "read_study", "run_study"]
