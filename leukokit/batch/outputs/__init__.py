"""What a batch writes at its end: tables and the report."""
