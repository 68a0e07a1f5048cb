"""This stage turns the network's answers at windows into 3-D masks on the prepared grid."""
