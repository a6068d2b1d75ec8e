"""Code that runs on a GPU machine: installation of the bundle, the checks, and their runner.

`install`, `parts`, `checks`, `results` and `runner` use only the standard library: they run before the installation.
"""
