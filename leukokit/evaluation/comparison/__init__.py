"""Several methods on the same fields, with paired tests."""
