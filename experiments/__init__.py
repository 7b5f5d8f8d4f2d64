"""Experiments: one thin command for each data set, made of settings alone."""
