"""Distil a network of your own, with a loss of your own: CPU, a minute. Both are in my_networks.py.

    python examples/distil_your_own_network.py

The commands below are what you would type; `--import` is needed wherever the model file is used.
"""

from pathlib import Path

from imdn_kd.cli import app

HERE = Path(__file__).resolve().parent
MODEL = "experiments/own_network/models/net_g_latest.safetensors"


def imdn_kd(*words: object) -> None:
    """Run a command of the toolkit."""
    print("imdn-kd", *words)
    app([str(word) for word in words], standalone_mode=False)


def main() -> None:
    """Prepare data, train, and measure what the student costs."""
    imdn_kd("prepare", "sample", "--scale", 2)
    imdn_kd("train", "-opt", HERE / "distil_your_own_network.yml")
    imdn_kd("profile", "--model", MODEL, "--import", HERE / "my_networks.py", "--size", "160x120", "--runs", 1)


if __name__ == "__main__":
    main()
