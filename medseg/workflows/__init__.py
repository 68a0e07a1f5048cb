"""This package composes the stages into the jobs behind the verbs; it alone unpacks a config."""
