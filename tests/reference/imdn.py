"""The IMDN family as plain functions of the weights, written from the formulas: no modules, no shared code."""

import torch
from torch import Tensor
from torch.nn.functional import conv2d, leaky_relu, pixel_shuffle, relu

Weights = dict[str, Tensor]


def conv(x: Tensor, w: Weights, key: str, stride: int = 1) -> Tensor:
    weight = w[f"{key}.weight"]
    return conv2d(x, weight, w.get(f"{key}.bias"), stride, weight.shape[2] // 2)


def act(x: Tensor) -> Tensor:
    return leaky_relu(x, 0.05)


def cca(x: Tensor, w: Weights, key: str) -> Tensor:
    n, c = x.shape[:2]
    flat = x.reshape(n, c, -1).double()
    mean = flat.mean(2)
    std = ((flat - mean[..., None]) ** 2).mean(2) ** 0.5
    contrast = (mean + std).to(x.dtype).reshape(n, c, 1, 1)
    scale = torch.sigmoid(conv(relu(conv(contrast, w, f"{key}.conv_du.0")), w, f"{key}.conv_du.2"))
    return x * scale


def imdb(x: Tensor, w: Weights, key: str, *, attention: bool) -> Tensor:
    kept = w[f"{key}.c4.weight"].shape[0]
    y1 = act(conv(x, w, f"{key}.c1"))
    y2 = act(conv(y1[:, kept:], w, f"{key}.c2"))
    y3 = act(conv(y2[:, kept:], w, f"{key}.c3"))
    y4 = conv(y3[:, kept:], w, f"{key}.c4")
    y = torch.cat([y1[:, :kept], y2[:, :kept], y3[:, :kept], y4], 1)
    if attention:
        y = cca(y, w, f"{key}.cca")
    return conv(y, w, f"{key}.c5") + x


def imdn(image: Tensor, w: Weights, scale: int) -> Tensor:
    return _body(conv(image, w, "fea_conv"), w, scale)


def imdn_as(image: Tensor, w: Weights) -> Tensor:
    return _body(conv(act(conv(image, w, "fea_conv.0", 2)), w, "fea_conv.2", 2), w, 4)


def _body(head: Tensor, w: Weights, scale: int) -> Tensor:
    x, outputs = head, []
    for k in range(1, 7):
        x = imdb(x, w, f"IMDB{k}", attention=True)
        outputs.append(x)
    fused = act(conv(torch.cat(outputs, 1), w, "c.0"))
    return pixel_shuffle(conv(conv(fused, w, "LR_conv") + head, w, "upsampler.0"), scale)


def imdn_rtc(image: Tensor, w: Weights, scale: int) -> Tensor:
    head = x = conv(image, w, "model.0")
    for k in range(5):
        x = imdb(x, w, f"model.1.sub.{k}", attention=False)
    return pixel_shuffle(conv(head + conv(x, w, "model.1.sub.5"), w, "model.2"), scale)


def imdn_rte(image: Tensor, w: Weights) -> Tensor:
    head = x = conv(relu(conv(image, w, "fea_conv.0")), w, "fea_conv.2", 2)
    for k in range(1, 7):
        y, parts = x, []
        for c in ("c1", "c2", "c3", "c4", "c5"):
            y = relu(conv(y, w, f"block{k}.{c}"))
            parts.append(y[:, :5])
            y = y[:, 5:]
        parts.append(relu(conv(y, w, f"block{k}.c6")))
        x = conv(torch.cat(parts, 1), w, f"block{k}.c7") + x
    return pixel_shuffle(conv(conv(x, w, "LR_conv") + head, w, "upsampler.0"), 4)
