"""Builds, tests and checks the iOS demo on a Debian machine, with Swift's compiler but without Xcode.

There are no frameworks of Apple's here: what uses them is type-checked against the declarations in ``stubs/``.
"""
