"""Puts the CUDA sources of `kernels/` into the package, where `rayspec.ops.loader` finds them."""

import shutil
from pathlib import Path

from setuptools import setup
from setuptools.command.build_py import build_py


class BuildWithKernels(build_py):
    """A build that has the sources in `rayspec/_kernels`; an editable one reads the checkout."""

    def run(self) -> None:
        """Build, then copy."""
        super().run()
        if not self.editable_mode:
            target = Path(self.build_lib, "rayspec", "_kernels")
            for folder in ("include", "csrc"):
                shutil.copytree(Path("kernels", folder), target / folder, dirs_exist_ok=True)


setup(cmdclass={"build_py": BuildWithKernels})
