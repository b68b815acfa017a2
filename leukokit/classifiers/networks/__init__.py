"""The networks behind the built-in classifiers, in plain torch."""
