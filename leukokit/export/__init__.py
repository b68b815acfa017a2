"""Networks written for other engines and programs, checked against torch."""
