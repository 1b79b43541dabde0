"""What all questions share: estimates, intervals, resampling units, checks, contingency tables."""
