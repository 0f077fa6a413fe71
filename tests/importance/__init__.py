"""Tests of importance."""
