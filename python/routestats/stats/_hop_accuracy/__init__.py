"""How often predictors name the experts at a later layer."""
