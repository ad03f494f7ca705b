import sys
from pathlib import Path

sys.path.append(str(Path(__file__).parent))  # for slow_detection, under --import-mode=importlib
