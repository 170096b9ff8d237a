"""Backends: the same functions, in files of the same names, and the same bits."""
