"""Upscale every picture in a folder: python examples/upscale_a_folder.py holidays large [--scale 3] [--model NAME]."""

import argparse
from pathlib import Path

from PIL import Image, ImageOps

from imdn_kd import Upscaler
from imdn_kd.errors import InputError
from imdn_kd.image.io import find_images


def main() -> None:
    """Read the command line and upscale."""
    parser = argparse.ArgumentParser(description="Upscale every picture in a folder.")
    parser.add_argument("folder", type=Path)
    parser.add_argument("output", type=Path)
    parser.add_argument("--model", help="a student of the zoo, or a model file; default: the best for the scale")
    parser.add_argument("--scale", type=float, default=4)
    options = parser.parse_args()

    upscaler = Upscaler(options.model) if options.model else Upscaler()
    options.output.mkdir(parents=True, exist_ok=True)
    for path in find_images(options.folder):
        try:
            large = upscaler(ImageOps.exif_transpose(Image.open(path)), options.scale)
        except (InputError, OSError) as error:
            print(f"{path}: left out ({error})")
            continue
        large.save(options.output / f"{path.stem}.png")
        print(f"{path}: {large.width}x{large.height}")


if __name__ == "__main__":
    main()
