"""Numbers that describe answers and truth: intervals, bootstrap, calibration. Arrays in, numbers out."""
