"""Routing statistics of Mixture-of-Experts models: capture, count, analyse, show."""
