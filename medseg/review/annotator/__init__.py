"""This package makes the page on which one ticks the grid cells of slices that hold a vessel.

`page.html`, `page.css` and the scripts beside this file are its parts; `page` puts them together.
"""
