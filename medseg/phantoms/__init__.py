"""Known-truth scans for the demo and the tests."""
