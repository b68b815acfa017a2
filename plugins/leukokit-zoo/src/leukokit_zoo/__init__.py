"""Networks that papers on leukocytes have proposed, as plugins of leukokit; README.md has their sources."""
