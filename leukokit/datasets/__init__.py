"""Annotated fields of view: public sets, formats, splits, and the index files made of them."""
