"""The predictors that several questions compare: their scores, hits and guesses."""
