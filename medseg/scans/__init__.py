"""From files to cases, from cases to arrays on a known grid, and masks back to files on that grid."""
