"""The model card of a student: what is written down of it, as Markdown for people."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from itertools import accumulate, pairwise
from typing import Any

from imdn_kd.data.degradation.schema import name_of_steps, read_steps
from imdn_kd.data.preparation.sources.catalogue import NAMED_SETS
from imdn_kd.evaluation.benchmark import BICUBIC, INPUT
from imdn_kd.evaluation.tables import Table
from imdn_kd.training.history import run_updates

Record = Mapping[str, Any]


def card(record: Record) -> str:
    """Write the card of a student.

    Args:
        record: plain values: `name`, `scale`, `network` (its spec), `parameters`, `multi_adds` (for a result of
            1280x720 px); `updates`, the iterations of all runs; `history`, the earlier runs, oldest first (see
            `imdn_kd.training.history`; records without it have none), all that follows being of the last run:
            `run_updates`, `seed`, `stages` (of {"start", "gt_size", "batch"}), `pieces` (see
            `imdn_kd.release.record.training_segments`), `start` ({"file", "sha256"} of the first weights, or None);
            `data` ({"name", "images", "store", "sha256"}, the last two None for other data than stores, and perhaps
            "degradation", the steps that made the LR images of a store, unless it is bicubic); `teachers` (of
            {"file", "sha256", "type", "self_ensemble", "weight"}); `losses` and `objectives` (their options by name);
            `optimizer`, `schedule` (the options of the scheduler, `warmup_iter` and `total_iter`), `ema_decay`;
            `selection` ({"set", "images", "lr", "psnr", "ssim", "update", "validations"}, and "also", a list, where the
            mean over several sets counted); `figures` ({"images", "lr", "psnr", "ssim"} by data set), `bicubic`
            ({"psnr", "ssim"} by data set, those for selection among them), `protocol` (lines); `weights` (`fp16` or
            `fp32`), `clean` of one that restores ({"set", "psnr"}: of photographs that need no restoration, dB,
            None for all), `rounding` ({"fp32", "fp16"} by data set, dB); `options` (path of the option file),
            `versions`; `notes` on data and licences, Markdown.
    """
    sections = {
        "Network": _network(record),
        "Figures": _figures(record),
        "Data and licences": _data(record),
        "Teacher": _teachers(record),
        "Recipe": _lines(_recipe(record)),
        "Weights": _weights(record),
        "Reproduce": _commands(record),
        "Limits": _limits(record),
    }
    body = "".join(f"\n## {title}\n\n{text.rstrip()}\n" for title, text in sections.items() if text)
    return f"# {record['name']}\n\n{_purpose(record)}\n{body}"


def _purpose(record: Record) -> str:
    name, scale = record["name"], record["scale"]
    taught = any(run["teachers"] for run in (record, *_history(record)))
    kind = "distilled from another network" if taught else "trained without a teacher"
    does, to = f"Enlarges photographs by {scale}", "large"
    if "clean" in record:
        steps = record["data"].get("degradation")
        removed = name_of_steps(read_steps(steps)) if steps else record["selection"]["lr"]
        does = f"Enlarges photographs by {scale} and restores them ({removed})"
        if scale == 1:
            does, to = f"Restores photographs at their own size ({removed})", "restored"
    return (
        f"{does}: a small network, {kind}, for where large ones take too long or too much "
        f"memory.\n\n    imdn-kd upscale photo.jpg -o {to} --model {name}"
    )


def _network(record: Record) -> str:
    options = dict(record["network"])
    kind = options.pop("type")
    described = ", ".join(f"{key} {_value(value)}" for key, value in options.items())
    multi_adds = f"{record['multi_adds'] / 1e9:.4g} G multi-adds for a result of 1280x720 px"
    return f"{kind} ({described}): {record['parameters']:,} parameters, {multi_adds}."


def _figures(record: Record) -> str:
    sets = [(name, name, figures) for name, figures in record["figures"].items()]
    sets += [(each["set"], f"{each['set']} (selected on)", each) for each in _selection(record)]
    rows = tuple(
        (shown, str(figures["images"]), figures["lr"], _both(record["bicubic"][name]), _both(figures))
        for name, shown, figures in sets
    )
    inputs, baseline = ("Inputs", INPUT) if record["scale"] == 1 else ("LR images", BICUBIC)
    columns = ("Data", "Images", inputs, baseline, str(record["name"]))
    texts = frozenset({"Data", inputs})
    return Table("PSNR in dB / SSIM", columns, rows, tuple(record["protocol"]), texts).markdown()


def _selection(record: Record) -> list[Record]:
    return [record["selection"], *record["selection"].get("also", ())]


def _data(record: Record) -> str:
    data = record["data"]
    checksum = f"; SHA-256 of the images in the store `{data['sha256']}`" if data["sha256"] else ""
    return f"Trained on {data['name']}: {data['images']:,} images{checksum}.\n\n{record['notes']}"


def _teachers(record: Record) -> str:
    teachers = record["teachers"]
    return _lines(_teacher(each, alone=len(teachers) == 1) for each in teachers)


def _teacher(teacher: Record, *, alone: bool) -> str:
    kind = f", {teacher['type']}" if teacher["type"] else ""
    asked = ", self-ensemble of eight" if teacher["self_ensemble"] else ""
    weight = "" if alone else f", weight {_value(teacher['weight'])}"
    return f"{teacher['file']}{kind}{asked}{weight}{_checksum(teacher)}"


def _checksum(file: Record) -> str:
    return f"; SHA-256 `{file['sha256']}`" if file["sha256"] else ""


def _recipe(record: Record) -> Iterator[str]:
    schedule, selection = record["schedule"], record["selection"]
    updates, total, history = run_updates(record), schedule["total_iter"], _history(record)
    if history:
        runs = f"{len(history) + 1} runs, each from the published weights of the one before"
        yield f"{record['updates']:,} iterations in {runs}"
    yield from map(_earlier, history)
    planned = "" if updates >= total else f" of {total:,} that were planned"
    yield f"{'the last run: ' if history else ''}{updates:,} iterations{planned}, seed {record['seed']}"
    for stage in record["stages"]:
        since = f" from iteration {stage['start'] + 1:,} on" if len(record["stages"]) > 1 else ""
        yield f"batches of {stage['batch']} patches of {stage['gt_size']} px{since}"
    if record["start"]:
        yield f"first weights: {record['start']['file']}{_checksum(record['start'])}"
    optimizer = dict(record["optimizer"])
    kind, rate = optimizer.pop("type"), optimizer.pop("lr")
    options = "".join(f", {key} {_value(value)}" for key, value in optimizer.items())
    yield f"{kind}{options}; learning rate {_value(rate)}{_warm_up(schedule)}"
    yield from _rates(record, rate)
    yield from _segments(record["pieces"])
    begun = _since(record["pieces"], "losses") - 1
    losses = {name: {**options, "start_iter": begun} for name, options in record["losses"].items()}
    for name, options in (*losses.items(), *record["objectives"].items()):
        yield _objective(name, options, updates)
    if record.get("reparam"):
        edges = " with edge operators" if record["reparam"].get("edge_operators") else ""
        yield f"3x3 convolutions trained as linear blocks of {record['reparam']['width']} times the channels{edges}"
    if record.get("quantize"):
        yield "inputs and kernels of convolutions rounded to 8 bits, in training and in the figures"
    if record["ema_decay"]:
        yield f"EMA of the weights with decay {_value(record['ema_decay'])}, which is what was kept"
    of_run = " of the last run" if history else ""
    chosen = " and ".join(each["set"] for each in _selection(record))
    chosen = f"{chosen} (their mean)" if "also" in selection else chosen
    precision = record["pieces"][-1]["precision"]
    if all(each.get("precision") == precision for each in record["pieces"]):
        yield "in fp32" if precision == "fp32" else f"in mixed precision, {precision}"
    yield (
        f"weights after iteration {selection['update']:,}{of_run}: those of the highest PSNR on {chosen}, of "
        f"{selection['validations']} validations"
    )
    yield "versions: " + ", ".join(f"{name} {version}" for name, version in record["versions"].items())


def _history(record: Record) -> Sequence[Record]:
    """The earlier runs, which older records do not have."""
    found: Sequence[Record] = record.get("history", ())
    return found


def _earlier(run: Record) -> str:
    """An earlier run in one line."""
    start, data, optimizer = run["start"], run["data"], run["optimizer"]
    losses = (f"{_value(each['loss_weight'])} {each['type']}" for each in run["losses"].values())
    objectives = [f"{_value(each['loss_weight'])} {each['type']}" for each in run["objectives"].values()]
    patches = (f"batches of {stage['batch']} patches of {stage['gt_size']} px" for stage in run["stages"])
    told = (
        f"{run['updates']:,} iterations, seed {run['seed']}",
        " then ".join(patches) + f" of {data['images']:,} images of {data['name']}",
        f"first weights {start['file']}" if start else "",
        f"{optimizer['type']}, learning rate {_value(optimizer['lr'])}",
        f"losses {', '.join(losses)}" if run["losses"] else "",
        f"objectives {', '.join(objectives)} ({', '.join(run['teachers'])})" if objectives else "",
        f"EMA {_value(run['ema_decay'])}" if run["ema_decay"] else "",
        run["precision"],
    )
    return "an earlier run: " + "; ".join(filter(None, told))


def _warm_up(schedule: Record) -> str:
    return f", to which it rises over {schedule['warmup_iter']:,} iterations" if schedule["warmup_iter"] > 0 else ""


def _rates(record: Record, rate: float) -> Iterator[str]:
    schedule = record["schedule"]
    if schedule.get("type") == "CosineAnnealingRestartLR":
        low = schedule["eta_min"]
        ends = [*accumulate(schedule["periods"])]
        starts = [0, *ends[:-1]]
        for start, end, weight in zip(starts, ends, schedule["restart_weights"], strict=True):
            high = low + weight * (rate - low)
            if start < run_updates(record):
                span = f"iterations {start + 1:,} to {end:,}"
                yield f"{span}: the rate decays from {high:.3g} to {low:.3g} along a cosine"
    elif schedule.get("type") == "WarmupStableDecayLR":
        high = schedule["restart_weights"][0] * rate
        yield (
            f"the rate is {high:.3g}, and decays to {schedule['eta_min']:.3g} in the last {schedule['decay_iter']:,} "
            "iterations, as 1 - sqrt(x) (warmup-stable-decay, https://arxiv.org/abs/2405.18392)"
        )
    elif "type" in schedule:
        steps = ", ".join(f"{step:,}" for step in schedule["milestones"])
        yield f"the rate is multiplied by {_value(schedule['gamma'])} after iterations {steps}"
        for step, weight in zip(schedule["restarts"], schedule["restart_weights"], strict=True):
            if step:
                yield f"after iteration {step:,} it starts again with {weight * rate:.3g}"


def _segments(segments: Sequence[Record]) -> Iterator[str]:
    """What was not the same in all segments; what is said elsewhere holds for the last one."""
    last = segments[-1]
    changed = [key for key in last if any(each.get(key, last[key]) != last[key] for each in segments[:-1])]
    for each in segments if len(segments) > 1 else ():
        settings = (
            f"{key} {_value(each[key])}" for key in changed if key in each and key not in ("from", "to", "known")
        )
        told = ", ".join(settings) if each["known"] else "not recorded"
        yield f"iterations {each['from']:,} to {each['to']:,}: {told}"


def _since(segments: Sequence[Record], setting: str) -> int:
    """The first iteration, from 1, since which a setting has been what it was in the end."""
    since = 1
    for before, after in pairwise(segments):
        since = after["from"] if before.get(setting) != after.get(setting) else since
    return int(since)


def _objective(name: str, given: Record, total: int) -> str:
    options = dict(given)
    kind, weight = options.pop("type"), options.pop("loss_weight")
    start, stop = options.pop("start_iter", 0), options.pop("stop_iter", None)
    ramp, decay = options.pop("ramp_iter", 0), options.pop("decay_iter", 0)
    own = "".join(f", {key} {_value(value)}" for key, value in options.items())
    when = "throughout" if not start and stop is None else f"iterations {start + 1:,} to {min(stop or total, total):,}"
    rising = f", rising over {ramp:,}" if ramp else ""
    falling = f", falling over the last {decay:,}" if decay else ""
    return f"`{name}`: {kind}{own}; weight {_value(weight)}, {when}{rising}{falling}"


def _weights(record: Record) -> str:
    costs = (
        f"{name} {both['fp16']:.4f} rather than {both['fp32']:.4f} dB"
        for name, both in record["rounding"].items()
        if both["fp16"] is not None
    )
    compared = ", ".join(costs) or "values beyond its range"
    if record["weights"] == "fp16":
        return f"Stored in fp16, which costs nothing that could be seen: {compared}. They are computed with in fp32."
    return f"Stored in fp32; fp16 would have given {compared}."


def _commands(record: Record) -> str:
    data, options, scale = record["data"], record["options"], record["scale"]
    lines = []
    if data["store"] and scale > 1:
        named = data["name"].lower()
        source = named if named in NAMED_SETS else "folder PHOTOGRAPHS"
        lines.append(f"imdn-kd prepare {source} --scale {scale} -o {data['store']}")
    lines += [f"imdn-kd train -opt {options}", f"imdn-kd zoo publish -opt {options}"]
    if "clean" not in record:  # figures of others are on inputs that benchmark does not make
        lines.append(f"imdn-kd benchmark --model {record['name']} --data {' '.join(record['figures'])}")
    return "\n".join(f"    {line}" for line in lines)


def _limits(record: Record) -> str:
    steps = record["data"].get("degradation")
    words, scale = name_of_steps(read_steps(steps)) if steps else "", record["scale"]
    if scale == 1:
        seen = f" ({words})" if words else ""
        return (
            f"Trained for inputs as it has seen{seen}: what they lack or have else is not restored, and fine texture "
            f"may go with what is removed. {_clean(record)}Figures are those of one training run, "
            f"with seed {record['seed']}; another seed gives somewhat other ones."
        )
    made = f"made by MATLAB's bicubic by {scale}, without noise"
    if words:
        made = f"made by {scale} with {words}"
    elif not record["data"]["store"]:
        made = "as it has seen"
    return (
        f"Trained for LR images {made}: other noise, blur and JPEG artefacts of the small image are "
        f"enlarged with it. Detail that the small image lost is not made up. {_clean(record)}"
        f"Figures are those of one training run, with seed {record['seed']}; another seed gives somewhat other ones."
    )


def _clean(record: Record) -> str:
    clean = record.get("clean")
    if clean is None:
        return ""
    if record["scale"] > 1:
        return f"Small photographs without such faults ({clean['set']}) are enlarged with {clean['psnr']:.2f} dB. "
    how = "as they were" if clean["psnr"] is None else f"with {clean['psnr']:.1f} dB"
    return f"Clean photographs ({clean['set']}) come back {how}. "


def _both(figures: Record) -> str:
    return f"{figures['psnr']:.3f} / {figures['ssim']:.4f}"


def _lines(items: Iterator[str]) -> str:
    return "\n".join(f"- {item}" for item in items)


def _value(value: Any) -> str:  # noqa: ANN401 - plain values
    if isinstance(value, bool) or value is None:
        return {True: "yes", False: "no", None: "none"}[value]
    if isinstance(value, float):
        return f"{value:g}"
    if isinstance(value, dict):
        return ", ".join(f"{key} to {_value(item)}" for key, item in value.items())
    return "[" + ", ".join(map(_value, value)) + "]" if isinstance(value, list) else str(value)
