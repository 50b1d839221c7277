"""Studies and run notebooks travel in the wheel; a checkout has them where they are written."""

import shutil
from pathlib import Path

from setuptools import setup
from setuptools.command.build_py import build_py


class BuildWithProject(build_py):
    "Copies what `zsemo run` reads into the package."

    def run(self) -> None:
        super().run()
        for place in () if self.editable_mode else ("runs/studies", "nbs/experiments"):
            hidden = shutil.ignore_patterns(".*")
            shutil.copytree(place, Path(self.build_lib) / "zsemo_kit" / "project" / place, ignore=hidden, dirs_exist_ok=True)


setup(cmdclass={"build_py": BuildWithProject})
