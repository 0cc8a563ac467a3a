"""Fetches two photographs (china.jpg, flower.jpg; CC-BY 2.0) that the package scikit-learn ships.

    python3 tests/reference/fetch_photographs.py FOLDER
"""

import pathlib
import subprocess
import sys
import tempfile
import zipfile

target = pathlib.Path(sys.argv[1])
with tempfile.TemporaryDirectory() as work:
    command = [sys.executable, "-m", "pip", "download", "--quiet", "--no-deps", "--only-binary=:all:"]
    subprocess.run([*command, "--dest", work, "scikit-learn"], check=True)
    wheel = next(pathlib.Path(work).glob("*.whl"))
    target.mkdir(parents=True, exist_ok=True)
    with zipfile.ZipFile(wheel) as package:
        for name in package.namelist():
            if name.startswith("sklearn/datasets/images/"):
                (target / pathlib.Path(name).name).write_bytes(package.read(name))
