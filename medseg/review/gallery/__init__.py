"""This package makes the gallery of a run's clusters: a card for each, and a slider for their number.

`page.html`, `page.css` and the scripts beside this file are its parts; `page` puts them together.
"""
