"""A folder of smears to counts: resumable, with a manifest of what was done to every image."""
