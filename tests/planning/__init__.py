"""Tests of plans: what a run takes, told before anything is loaded."""
