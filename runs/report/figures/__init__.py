"""Figures of the run page and of the study page."""
