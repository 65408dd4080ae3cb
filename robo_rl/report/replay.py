"""Pages of replays: what was compared, how it came out, and where to look."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import matplotlib as mpl
import numpy as np
from matplotlib.figure import Figure
from numpy.typing import NDArray

from robo_rl.report.figures import BLUE, GREY, ORANGE, STYLE, png
from robo_rl.report.page import Section, write_page

Array = NDArray[Any]
PARITY = 1e-5


def write_policy_report(
    path: Path, log: Path, found: Mapping[str, Any], replayed: Any, score: Array, artifact: Any, annotator: str
) -> None:
    """The page of `replay policy`."""
    t_s = (np.array(replayed.t_ns) - replayed.t_ns[0]) / 1e9
    same, worst = found["same_policy"], found["max_action_difference"]
    ok = worst <= PARITY if same else True
    verdict = (
        f"parity {'holds' if ok else 'fails'}: largest difference {worst:.2g} of an action unit, {PARITY:g} allowed."
        if same
        else "another policy than the one that ran: a comparison, not a proof."
    )
    names = [f.name for f in artifact.card.action]
    rows = [
        (n, f"rmse {found['rmse'][n]:.3g} {found['units'][n]}", f"saturated {found['saturated'][n]:.1%} of the time")
        for n in names
    ]
    rows += [
        ("cosine of all commands", f"{found['cosine']:.6f}", ""),
        ("latency, p50 and p99", f"{found['latency_ms_p50']:.3f} and {found['latency_ms_p99']:.3f} ms", ""),
        ("ticks compared", f"{found['compared']:,} of {found['ticks']:,}", f"{found['unmatched']} without a state"),
    ]
    strange = found["out_of_distribution"]
    write_page(
        path,
        title=f"{log.name} through {artifact.path.name}",
        verdict=verdict,
        ok=ok,
        facts=f"{found['compared']:,} ticks over {t_s[-1]:.1f} s; policy {artifact.sha256[:12]}",
        sections=[
            Section(
                "Commands",
                "What this policy wishes on the recorded observations, against what was wished then.",
                rows=rows,
                pictures=[(_commands(t_s, replayed, names), "Recorded (grey) and replayed (blue) commands.")],
            ),
            Section(
                "Familiarity",
                "Distance of every observation to the nearest one that the policy is known to have met; 1 is usual.",
                rows=[
                    ("median", f"{strange['median']:.2f}", f"{strange['known_observations']} known observations"),
                    ("99th percentile", f"{strange['p99']:.2f}", ""),
                ],
                pictures=[(_score(t_s, score), "Distance over time.")],
            ),
            worst_section(log, found["worst_windows"], annotator),
        ],
    )


def write_sim_report(path: Path, scene: str, log: Path, found: Mapping[str, Any], covered: Any, annotator: str) -> None:
    """The page of `replay sim`."""
    delay = found["delay_s"]
    apart = found["diverged_s"]
    rows = [("delay behind the simulator", "not measurable" if delay is None else f"{delay * 1e3:.1f} ms", "")]
    rows.append(("commands shifted by", f"{found['aligned_steps']} control periods", ""))
    for name, by_k in found["rmse"].items():
        values = ", ".join(f"{k}: {v:.3g}" for k, v in by_k.items())
        rows.append((name, values, f"free run {found['free_run'][name]:.3g}"))
    free = "never" if apart is None else f"after {apart:.2f} s"
    rows.append(("free run away", free, f"more than {found['diverged_at']}"))
    sections = [
        Section(
            "Divergence",
            "Root mean square errors after k control steps from recorded states, and of one run from start to end.",
            rows=rows,
            pictures=[(_growth(found["relative"]), "Error over the signal's own spread.")],
        )
    ]
    if covered is not None:
        sections.append(
            Section(
                "Coverage",
                "Share of the log inside the 5 to 95 % band of worlds drawn from the scene's ranges; less than 90 % "
                "means that ranges are too narrow or that the model lacks something, more that they are wide.",
                rows=[(n, f"{v:.1%}", "90 % wanted") for n, v in covered.share.items()],
                pictures=[(_coverage(covered.by_step), "Share after every step of a window.")],
                ok=min(covered.share.values()) >= 0.9,
            )
        )
    sections.append(worst_section(log, found["worst_windows"], annotator))
    write_page(
        path,
        title=f"{log.name} through {scene}",
        verdict=f"the free run stays near: {free}." if apart is None else f"the free run parts {free}.",
        ok=apart is None,
        facts=f"{found['duration_s']:.1f} s of {found['mode']}, {found['windows']} windows",
        sections=sections,
    )


def write_ope_report(path: Path, policy: str, data: Path, found: Mapping[str, Any]) -> None:
    """The page of `replay ope`."""
    rows = [
        ("recorded return", f"{found['recorded_return']:.4g}", f"{found['episodes']} episodes, gamma {found['gamma']}"),
        ("distance of actions", f"{found['action_distance']:.3f}", "mean, in action units"),
    ]
    told = 0
    for key, words in (("fqe", "fitted Q evaluation"), ("wis", "weighted importance sampling")):
        e = found[key]
        if e["value"] is None:
            rows.append((words, "no estimate", e["reason"]))
            continue
        told += 1
        size = f"{e['effective_episodes']:.1f} effective episodes" if "effective_episodes" in e else ""
        rows.append((words, f"{e['value']:.4g} [{e['ci95'][0]:.4g}, {e['ci95'][1]:.4g}]", size))
    write_page(
        path,
        title=f"{policy} judged by {data.name}",
        verdict="estimates with 95 % intervals." if told else "insufficient data.",
        ok=told > 0,
        facts="Nothing was run: these are estimates from recorded transitions alone.",
        sections=[Section("Estimates", "Discounted return from the data's starts.", rows=rows)],
    )


def worst_section(log: Path, windows: Sequence[Mapping[str, float]], annotator: str) -> Section:
    """Where to look first: links into a running annotator, or the commands that open it there."""
    page = annotator.split("#", 1)[0]
    return Section(
        "Worst windows",
        "Open them on the annotation page, worst first."
        if page
        else "Commands that open them on the annotation page, worst first; with --annotator URL these are links.",
        rows=[(f"{w['t_s']:.2f} s", f"{w['score']:.3g}", "") for w in windows],
        links=[(f"at {w['t_s']:.2f} s", f"{page}#t={w['t_s']:.3f}") for w in windows] if page else (),
        command="" if page else "\n".join(f"robo-rl annotate {log} --at {w['t_s']:.2f}" for w in windows),
    )


def _commands(t_s: Array, replayed: Any, names: Sequence[str]) -> bytes:
    wanted, recorded = np.array(replayed.wanted), np.array(replayed.recorded)
    with mpl.rc_context(STYLE):
        figure = Figure(figsize=(9, 1.5 * len(names)), layout="constrained")
        axes = np.atleast_1d(np.asarray(figure.subplots(len(names), 1, sharex=True)))
        for ax, name, w, r in zip(axes, names, wanted.T, recorded.T, strict=True):
            ax.plot(t_s, r, color=GREY, lw=2.0)
            ax.plot(t_s, w, color=BLUE, lw=0.8)
            ax.set_title(name)
        axes[-1].set_xlabel("s")
        return png(figure)


def _score(t_s: Array, score: Array) -> bytes:
    with mpl.rc_context(STYLE):
        figure = Figure(figsize=(9, 2.2), layout="constrained")
        ax: Any = figure.subplots()
        ax.semilogy(t_s, np.maximum(score, 1e-3), color=BLUE, lw=0.9)
        ax.axhline(1.0, color=ORANGE, lw=1, ls="--")
        ax.set(xlabel="s", ylabel="distance (1: usual)")
        return png(figure)


def _growth(relative: Mapping[str, Mapping[Any, float]]) -> bytes:
    with mpl.rc_context(STYLE):
        figure = Figure(figsize=(9, 2.8), layout="constrained")
        ax: Any = figure.subplots()
        for name, by_k in relative.items():
            ax.loglog([int(k) for k in by_k], list(by_k.values()), "o-", ms=4, lw=1.3, label=name.replace("_", " "))
        ax.axhline(1.0, color=GREY, lw=1, ls="--")
        ax.set(xlabel="control steps", ylabel="error / spread")
        ax.legend(fontsize=8, loc="center left", bbox_to_anchor=(1.0, 0.5))
        return png(figure)


def _coverage(by_step: Mapping[str, Sequence[float]]) -> bytes:
    with mpl.rc_context(STYLE):
        figure = Figure(figsize=(9, 2.6), layout="constrained")
        ax: Any = figure.subplots()
        for name, shares in by_step.items():
            ax.plot(range(1, len(shares) + 1), shares, lw=1.3, label=name.replace("_", " "))
        ax.axhline(0.9, color=ORANGE, lw=1, ls="--")
        ax.set(xlabel="steps of the window", ylabel="share inside", ylim=(0, 1.02))
        ax.legend(fontsize=8, loc="center left", bbox_to_anchor=(1.0, 0.5))
        return png(figure)
