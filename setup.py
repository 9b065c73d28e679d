"""What pyproject.toml cannot say: data_catalog/ is installed inside the package."""

from setuptools import find_packages, setup

setup(
    packages=[*find_packages(include=["niripipe*"]), "niripipe.data_catalog"],
    package_dir={"niripipe.data_catalog": "data_catalog"},
)
