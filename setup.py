"""Packaging of imdn_kd; tool settings are in pyproject.toml."""

import re
from pathlib import Path

from setuptools import find_packages, setup

ROOT = Path(__file__).parent
VERSION = re.findall(r'^__version__ = "(.+)"$', (ROOT / "imdn_kd/__init__.py").read_text(encoding="utf-8"), re.M)[0]

CORE = [
    "torch>=2.6",
    "numpy>=1.26",
    "scipy>=1.11.4",
    "pillow>=10.3",
    "scikit-image>=0.22",
    "tifffile>=2024.1.30",
    "imagecodecs>=2024.6.1",
    "imagehash>=4.3",
    "pyyaml>=6.0",
    "pydantic>=2.11",
    "typer>=0.16",
    "rich>=14.0",
    "safetensors>=0.4.3",
    "platformdirs>=4.2",
    "psutil>=5.9",
    "filelock>=3.13",
]
TRAIN = [
    'basicsr>=1.4.2; python_version < "3.13"',
    "lmdb>=1.4",
    "accelerate>=0.30",
    "tensorboard>=2.17",
    "spandrel>=0.4",
]
DEPLOY = [
    "onnx>=1.16",  # by which PyTorch exports
    "onnxruntime>=1.20",
    "openvino>=2024.6",
    "ncnn>=1.0.20240410",
    "pnnx>=20240410",  # by which networks become ncnn's
]
STUDY = [
    "matplotlib>=3.8",
]
VIDEO = [
    "av>=18.0",
]
HUB = [
    "huggingface-hub>=0.30",
]
WEB = [
    "gradio>=6.31",
    "fastapi>=0.115.2",  # these three come with it
    "starlette>=1.0.1",
    "uvicorn>=0.30",
]
DOCS = [
    "sphinx>=8.1",
    "myst-parser>=4.0",
    "furo>=2024.8.6",
]
DEV = [
    "pytest>=8.2",
    "pytest-xdist>=3.6.1",
    "hypothesis>=6.100",
    "ruff>=0.5",
    "mypy>=1.10",
    "types-PyYAML",
    "pre-commit>=3.7",
    "playwright>=1.49",  # drives Chromium; its tests are skipped where there is none
]

setup(
    name="imdn_kd",
    version=VERSION,
    description="Distil large super-resolution networks into small IMDN-family students, and put the students to work",
    long_description=(ROOT / "README.md").read_text(encoding="utf-8"),
    long_description_content_type="text/markdown",
    license="Apache-2.0",
    python_requires=">=3.10",
    packages=find_packages(include=["imdn_kd", "imdn_kd.*"]),
    package_data={"imdn_kd": ["py.typed", "zoo/*", "evaluation/*.html", "web/static/*"]},
    install_requires=CORE,
    extras_require={
        "train": TRAIN,
        "deploy": DEPLOY,
        "video": VIDEO,
        "study": STUDY,
        "hub": HUB,
        "web": WEB,
        "docs": DOCS,
        "dev": DEV,
    },
    entry_points={"console_scripts": ["imdn-kd=imdn_kd.cli:main"]},
    classifiers=[
        "Development Status :: 3 - Alpha",
        "Intended Audience :: Science/Research",
        "Programming Language :: Python :: 3",
        "Topic :: Scientific/Engineering :: Image Processing",
    ],
)
