"""The Android project without Gradle and without an SDK, on a plain Debian machine.

Gradle makes what is installed on phones. ``python -m android_demo.host.build`` compiles the same sources with the same
versions, runs their JVM tests, checks style and API, and packs an APK, in a minute, so that CI can.
"""
