"""Build file of the ROS 2 package, as ament_python has it."""

from setuptools import setup

NAME = "geodtr_localizer"

setup(
    name=NAME,
    version="0.1.0",
    packages=[NAME],
    data_files=[
        ("share/ament_index/resource_index/packages", [f"resource/{NAME}"]),
        (f"share/{NAME}", ["package.xml"]),
        (f"share/{NAME}/launch", ["launch/localizer.launch.py"]),
        (f"share/{NAME}/config", ["config/localizer.yaml"]),
    ],
    install_requires=["setuptools"],
    zip_safe=True,
    maintainer="The geodtr-export authors",
    maintainer_email="geodtr@example.org",
    description="Positions by cross-view retrieval.",
    license="Apache-2.0",
    entry_points={"console_scripts": [f"localizer = {NAME}.node:main"]},
)
