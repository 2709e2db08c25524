"""Faster forms of functions that stand elsewhere: same signature, same result; a test holds each to its plain twin."""
