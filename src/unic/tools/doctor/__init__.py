"""The doctor: what teachers are like on the user's own images, before time is spent on learning from them.

Behind `unic teachers check NAME... --data DIR`; start with doctor.py.
"""
