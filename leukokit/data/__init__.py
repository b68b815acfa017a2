"""Public data sets, their preparation for training, and drawn smears."""
