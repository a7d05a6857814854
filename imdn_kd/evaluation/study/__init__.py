"""Studies: what one is asked, its figures, what they show, and the report. `imdn_kd.study` trains the runs."""
