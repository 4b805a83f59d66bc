"""Threshold and balance: which labels train the student, and how often."""
