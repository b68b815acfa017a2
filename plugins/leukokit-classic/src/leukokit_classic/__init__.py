"""Image processing that papers on leukocytes have proposed, as plugins of leukokit; README.md has sources."""
