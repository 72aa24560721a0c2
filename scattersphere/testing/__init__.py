"""For those who test what they build on Scattersphere.

`scattersphere.testing.backends` holds the contract of a backend as checks that any backend can be put through.
"""
