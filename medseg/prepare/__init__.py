"""Scans to standardised volumes: grid, brain, grey values, vesselness."""
