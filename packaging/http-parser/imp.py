"""Lent to the setup.py of http-parser, and to nothing else, while it is installed.

Its compiled half is older than the inside of today's Python. Its own pure half is what it installs on PyPy, so that is
what it is told; and the module it takes this function from is gone since Python 3.12.
"""

import importlib.util
import sys

sys.pypy_version_info = sys.version_info


def load_source(name, path):
    spec = importlib.util.spec_from_file_location(name, path)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module
