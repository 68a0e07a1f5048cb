"""This stage turns patches and volumes into frozen features, computed once and kept on disk."""
