import sys
from pathlib import Path

sys.path.append(str(Path(__file__).parent))  # for tiny_run, under --import-mode=importlib
