"""The tables of the page, and what they say in sentences, from the record alone."""

from __future__ import annotations

from peers.engines import BY_NAME, ENGINES, OURS
from peers.record import DIVERGENCE, SPEED

_KINDS = ("prefill", "decode")


def engines_in(record):
    """Return the engines that a record has anything of, in the order of `ENGINES`."""
    names = {name for entry in record["measurements"] for name in entry["engines"]}
    return [engine for engine in ENGINES if engine.name in names]


def speed_entries(record, model=None):
    """Return the entries of speed, by rows; of a model if one is named."""
    found = [e for e in record["measurements"] if e["part"] == SPEED]
    return sorted((e for e in found if model in (None, e["model"])), key=lambda e: e["rows"])


def models_in(record):
    """Return the models that were measured, the smallest first: "0.5 B model" and the like."""
    names = {e["model"] for e in record["measurements"] if e["part"] == SPEED}
    return sorted(names, key=lambda name: float(name.split()[0]))


def rows_in(record, model):
    """Return the batches measured of a model."""
    return list(dict.fromkeys(entry["rows"] for entry in speed_entries(record, model)))


def result_of(record, engine, model, rows):
    """Return an engine's results in one case, None where there are none; of ours, the first."""
    for entry in speed_entries(record, model):
        if entry["rows"] == rows and engine.name in entry["engines"]:
            return entry["engines"][engine.name]
    return None


def divergence_of(record, engine):
    """Return what was found of an engine's answers, or None."""
    for entry in record["measurements"]:
        if entry["part"] == DIVERGENCE and engine.name in entry["engines"]:
            return entry["engines"][engine.name]
    return None


def table(headings, rows):
    """Return a Markdown table, figures to the right."""
    lines = [headings, ["---", *["---:"] * (len(headings) - 1)], *rows]
    return "\n".join("| " + " | ".join(cells) + " |" for cells in lines)


def speed_table(record, model):
    """Return times of a model, and in brackets how many times as fast layercast is."""
    batches = rows_in(record, model)
    headings = ["engine"] + [f"{kind}, batch {rows}" for kind in _KINDS for rows in batches]
    lines = []
    for engine in engines_in(record):
        cells = [
            _speed_cell(engine, result_of(record, engine, model, rows), kind)
            for kind in _KINDS
            for rows in batches
        ]
        if any(cells):
            lines.append([engine.label, *cells])
    return table(headings, lines)


def _speed_cell(engine, result, kind):
    if result is None:
        return ""
    text = milliseconds(result["seconds"][kind]["median"])
    return text if engine.name == OURS else f"{text} ({factor(result['speed'][kind]['value'])})"


def milliseconds(seconds):
    """Return a time to three digits or so."""
    value = 1e3 * seconds
    return f"{value:,.{0 if value >= 100 else 1}f} ms"


def factor(value):
    """Return a ratio to two or three digits, with its sign of multiplication."""
    return f"{value:.{1 if value >= 10 else 2}f}×"


def memory_table(record):
    """Return load time and memory of each engine."""
    models = models_in(record)
    headings = ["engine"]
    for model in models:
        headings += [f"{model}: load", "own", "peak"]
    lines = []
    for engine in engines_in(record):
        cells = []
        for model in models:
            batches = rows_in(record, model)
            result = result_of(record, engine, model, batches[0])
            cells += _memory_cells(result)
        if any(cells):
            lines.append([engine.label, *cells])
    return table(headings, lines)


def _memory_cells(result):
    if result is None:
        return ["", "", ""]
    memory = result["memory_bytes"]
    sizes = (f"{memory[name] / 1e9:.2f} GB" for name in ("anonymous_bytes", "peak_bytes"))
    return [f"{result['load_seconds']:.1f} s", *sizes]


def divergence_table(record):
    """Return how far each engine's answers and log-probabilities move."""
    headings = ["engine", "answers that differ", "tokens before they part"]
    headings += ["log-probabilities of chosen tokens", "whole rows"]
    lines = []
    for engine in engines_in(record):
        found = divergence_of(record, engine)
        if found is not None:
            parts = "" if found["div_index"] < 0 else f"{found['div_index']:.0f}"
            bits = (_bits(found[kind]) for kind in ("logprobs", "rows"))
            lines.append([engine.label, f"{found['div_percent']:.1f} %", parts, *bits])
    return table(headings, lines)


def _bits(found):
    if found is None:
        return "not given"
    if found["problems_differing"] == 0:
        return f"equal ({found['positions']:,} positions)"
    return f"{found['problems_differing_percent']:.1f} % of problems differ"


def losses(record):
    """Return a list of what is faster than layercast, and at which batches; fastest first."""
    lines = []
    for model in models_in(record):
        for kind in _KINDS:
            found = []
            for engine in engines_in(record):
                for rows in rows_in(record, model):
                    result = result_of(record, engine, model, rows)
                    speed = result["speed"][kind] if result else {"value": 1.0, "high": 1.0}
                    # Of medians, and round by round: in a disturbed run they can disagree.
                    if max(speed["value"], speed["high"]) < 1:
                        found.append((speed["value"], engine.label, rows))
            text = ", ".join(
                f"{label} {factor(1 / value)} at batch {rows}"
                for value, label, rows in sorted(found)
            )
            lines.append(f"- {kind}, {model}: {text or 'none'}.")
    return "\n".join(lines)


def setting(record):
    """Return what the figures were measured on, in sentences."""
    entries = record["measurements"]
    contexts = [record["contexts"][key] for key in dict.fromkeys(e["context"] for e in entries)]
    device = contexts[-1]["device"]
    memory = device["memory_bytes"] / 2**30
    results = [found for entry in entries for found in entry["engines"].values()]
    engines = sorted({facts["engine"] for found in results for facts in _told(found)})
    isa = contexts[-1]["torch"]["cpu_capability"]
    quiet = all(entry["quiet"] for entry in speed_entries(record))
    trial = any(context.get("trial") for context in contexts)
    commits = dict.fromkeys(str(context["source"]["commit"])[:10] for context in contexts)
    lines = [
        f"Machine: {device['cpu_model']}, {device['usable_cores']} cores, {memory:.0f} GiB; torch "
        f"reports {isa}. Measured {contexts[-1]['time'][:10]} at commit {', '.join(commits)}.",
        f"Engines: {'; '.join(engines)}.",
    ]
    if trial:
        lines.append("**A trial run: these times are no measurement.**")
    elif not quiet:
        lines.append("**Other processes ran meanwhile: these times are no measurement.**")
    return "\n\n".join([*lines, *left_out(record)])


def _told(found):
    """Return what an engine said of itself: of divergence, once for each number of threads."""
    facts = found.get("facts", {})
    return [facts] if "engine" in facts else list(facts.values())


def left_out(record):
    """Return a sentence for each engine that the record has nothing of, or not of every model."""
    there = {engine.name for engine in engines_in(record)}
    told = {}
    for context in record["contexts"].values():
        told |= context.get("left_out", {})
    lines = [reason for name, reason in told.items() if name not in there]
    for entry in speed_entries(record):
        for name, reason in entry.get("left_out", {}).items():
            if result_of(record, BY_NAME[name], entry["model"], entry["rows"]) is None:
                lines.append(f"{BY_NAME[name].label} has no speed of {entry['model']}: {reason}")
    return list(dict.fromkeys(lines))


def equality(record):
    """Return whether layercast's answers in vLLM are those in transformers, in a sentence."""
    found = divergence_of(record, BY_NAME["vllm_layercast"])
    beside = None if found is None else found["against"].get(OURS)
    if beside is None:
        return "layercast in vLLM was not compared with layercast in transformers."
    equal = beside["tokens_equal"] and beside["bits_equal"]
    said = "are equal" if equal else "are **not** equal"
    return (
        f"layercast in vLLM and in transformers: every token and every bit of "
        f"{beside['positions']:,} log-probabilities {said}."
    )


def distances(record):
    """Return how far each engine's log-probabilities are from stock FP32's: the same model."""
    lines = []
    for engine in engines_in(record):
        found = divergence_of(record, engine)
        beside = None if found is None else found["against"].get("stock_fp32")
        if beside is not None:
            figures = (f"{beside[f'{kind}_difference']:.1e}" for kind in ("median", "largest"))
            lines.append([engine.label, *figures, f"{beside['positions']:,}"])
    return table(["engine", "median", "largest", "positions"], lines)


def blocks(record):
    """Return the page's generated blocks, by name."""
    speeds = [f"**{model}**\n\n{speed_table(record, model)}" for model in models_in(record)]
    return {
        "setting": setting(record),
        "speed": "\n\n".join(speeds),
        "losses": losses(record),
        "memory": memory_table(record),
        "divergence": divergence_table(record),
        "equality": equality(record),
        "distances": distances(record),
    }
