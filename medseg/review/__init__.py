"""This package shows results to people: pictures of scans and masks, charts of scores. It imports no torch."""
