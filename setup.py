"""Build of the ROS package nocsfm_ros; its version stands in package.xml alone."""

import xml.etree.ElementTree as ElementTree
from pathlib import Path

from setuptools import find_packages, setup

NAME = "nocsfm_ros"
ROOT = Path(__file__).resolve().parent


def files_below(folder: str) -> list[str]:
    """All files below a folder of the package, relative to the package; none where it does not exist."""
    base = ROOT / NAME
    return sorted(str(path.relative_to(base)) for path in (base / folder).rglob("*") if path.is_file())


def shared(folder: str) -> tuple[str, list[str]]:
    """A folder of the repository, installed below share/nocsfm_ros."""
    files = sorted(str(path.relative_to(ROOT)) for path in (ROOT / folder).glob("*") if path.is_file())
    return f"share/{NAME}/{folder}", files


setup(
    name=NAME,
    version=ElementTree.parse(ROOT / "package.xml").findtext("version"),
    packages=find_packages(include=[NAME, f"{NAME}.*"]),
    package_data={NAME: ["py.typed", *files_below("weights"), *files_below("demo_data")]},
    data_files=[
        ("share/ament_index/resource_index/packages", [f"resource/{NAME}"]),
        (f"share/{NAME}", ["package.xml"]),
        shared("launch"),
        shared("config"),
        shared("config/train"),
    ],
    install_requires=["setuptools"],
    extras_require={"test": ["pytest"]},
    python_requires=">=3.10",
    zip_safe=False,
    maintainer="nocsfm_ros maintainers",
    maintainer_email="maintainers@nocsfm.example",
    description="6D pose of any object from one reference picture, as a ROS 2 node",
    license="Apache-2.0",
    entry_points={
        "console_scripts": [
            f"tracker_node = {NAME}.start:tracker_node",
            f"set_reference = {NAME}.start:set_reference",
            f"player = {NAME}.start:player",
            f"nocsfm = {NAME}.cli:main",
            f"demo = {NAME}.demo:main",
        ]
    },
)
