"""What a batch writes at its end, from the manifest alone: tables, ``run.json`` and the report."""
