"""The parts of the report: a file per statistic, with all that is shown of it."""
