"""Writers: plugins that save results in a format."""
