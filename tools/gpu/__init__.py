"""What runs on a bare GPU machine: the bundle's installation, the checks, and how they are run one by one.

Its modules up to `runner` need nothing but Python itself: they run there before anything is installed.
"""
