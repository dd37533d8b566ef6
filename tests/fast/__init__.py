"""The fast tests: they start no server, need nothing but Python, and take seconds.

    python3 -m unittest discover -s tests/fast

They are a package so that `discover -s tests` finds them, too.
"""
