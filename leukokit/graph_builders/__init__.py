"""Graph builders: plugins that link the cells of a smear with their neighbours."""
