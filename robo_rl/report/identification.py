"""The page of an identification: parameters with intervals, held-out fits, residuals."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import matplotlib as mpl
import numpy as np
import torch
from matplotlib.figure import Figure

from robo_rl.report.figures import BLUE, GREEN, GREY, ORANGE, STYLE, png
from robo_rl.report.page import Section, write_page
from sim.identify.fit import Problem, descend
from sim.identify.joints import Joint
from sim.identify.logs import Recording
from sim.identify.run import Identified
from sim.identify.windows import Split


def write_report(
    path: Path, model: str, found: Identified, recordings: Sequence[Recording], windows: Split, diff: str
) -> None:
    """Writes the page of a scene's identification."""
    held = found.held_out
    ok = not held.rejection
    count = len(found.identified)
    verdict = held.rejection or (
        f"{count} of {len(found.estimates)} parameters identified; the held-out error is {held.ratio:.0%} of the "
        "nominal model's."
    )
    data_rows = [
        (
            str(r.path.name),
            f"{r.quality.duration_s:.1f} s at {r.quality.rate_hz:.4g} Hz",
            f"{r.quality.gaps} gaps, longest {r.quality.longest_gap_s:.3g} s; {r.digest[:19]}",
        )
        for r in recordings
    ]
    parameters = [
        (
            e.name,
            f"{e.fit:.4g} [{e.low:.4g}, {e.high:.4g}] {e.unit}",
            f"prior {e.prior[0]:.4g} to {e.prior[1]:.4g}; " + ("identified" if e.identified else e.reason),
        )
        for e in found.estimates
    ]
    errors = [(n, f"{v:.4g}", f"nominal model {held.nominal[n]:.4g}") for n, v in held.rmse.items()]
    write_page(
        path,
        title=f"Identification of {model}",
        verdict=verdict,
        ok=ok,
        facts=f"{windows.train.count} windows to fit to, {windows.held_out.count} to judge by: {windows.rule}",
        sections=[
            Section("Data", "What was recorded, and how well.", rows=data_rows),
            Section(
                "Parameters",
                "Intervals are 95 %, the wider of curvature and spread between windows.",
                rows=parameters,
                pictures=[(intervals(found), "Fit and interval within the prior range; grey where the prior stays.")],
            ),
            Section(
                "Held-out windows",
                "Errors of models that start as well as they can in windows that the fit has not seen.",
                rows=errors,
                pictures=[(held_out(found, windows), "A held-out window: logged, fitted and nominal.")],
            ),
            Section("Proposal", "What would change in ranges.toml.", command=diff or "nothing"),
        ],
    )


def write_joint_report(path: Path, log: Path, joints: Mapping[str, Joint]) -> None:
    """Writes the page of joints as servos."""
    rejected = [n for n, j in joints.items() if j.found.held_out.rejection]
    sections = []
    for name, joint in joints.items():
        rows = [
            (
                e.name,
                f"{e.fit:.4g} [{e.low:.4g}, {e.high:.4g}] {e.unit}",
                "identified" if e.identified else e.reason,
            )
            for e in joint.found.estimates
        ]
        rows += [(f"free run, {m}", f"{v:.4f} rad", "") for m, v in joint.free_run.items()]
        picture = (joint_path(joint), "The held-out part in one run, without correction; below, its errors.")
        sections.append(Section(name, "One servo model.", rows=rows, pictures=[picture]))
    write_page(
        path,
        title=f"Joint servos of {log.name}",
        verdict=f"rejected: {', '.join(rejected)}" if rejected else "every joint is explained by a servo model.",
        ok=not rejected,
        facts="Fitted to the first 60 % of the recording, run freely over the rest.",
        sections=sections,
    )


def intervals(found: Identified) -> bytes:
    """Fits and intervals, each over the prior range of its parameter."""
    rows = found.estimates
    with mpl.rc_context(STYLE):
        figure = Figure(figsize=(9, 0.8 + 0.34 * len(rows)), layout="constrained")
        ax: Any = figure.subplots()
        for i, e in enumerate(rows):
            low, high = e.prior
            place = lambda v, low=low, high=high: (v - low) / max(high - low, 1e-300)  # noqa: E731
            color = BLUE if e.identified else GREY
            ax.plot([0, 1], [-i, -i], color="#e6e9ed", lw=7, solid_capstyle="butt")
            ends = np.clip([place(e.low), place(e.high)], -0.6, 1.6)
            ax.plot(ends, [-i, -i], color=color, lw=2.5)
            ax.plot(np.clip(place(e.fit), -0.6, 1.6), -i, "o", color=color, ms=6)
        ax.set_yticks([-i for i in range(len(rows))], [e.name for e in rows])
        ax.set_xticks([0, 1], ["low end of prior", "high end of prior"])
        ax.set_xlim(-0.65, 1.65)
        ax.grid(axis="y", visible=False)
        return png(figure)


def held_out(found: Identified, windows: Split, row: int = 0) -> bytes:
    """One held-out window: logged, fitted, nominal; the liveliest component of each signal."""
    problem = Problem(found.problem.rollout, windows.held_out, found.problem.free, found.problem.known)
    fitted = _errors(problem, found.solution.unit, found)
    nominal = _errors(problem, problem.start_unit.numpy(), found)
    names = list(problem.rollout.signals)
    with mpl.rc_context(STYLE):
        figure = Figure(figsize=(9, 2.6), layout="constrained")
        axes = np.atleast_1d(np.asarray(figure.subplots(1, len(names))))
        for ax, name in zip(axes, names, strict=True):
            logged = windows.held_out.signals[name][row].numpy()
            times = np.arange(len(logged)) / problem.rollout.rate_hz
            off_fit, off_nominal = fitted[name][0, row].numpy(), nominal[name][0, row].numpy()
            if name == "quat_wxyz":  # errors as rotation vectors
                j = int(np.abs(off_nominal).max(axis=0).argmax())
                base = np.zeros(len(logged))
                title = "attitude error (rad)"
            else:
                j = int(np.ptp(logged, axis=0).argmax())
                base = logged[:, j]
                title = name.replace("_", " ")
            ax.plot(times, base, color=GREY, lw=2.2, label="logged")
            ax.plot(times, base + off_nominal[:, j], color=ORANGE, lw=1.1, label="nominal")
            ax.plot(times, base + off_fit[:, j], color=BLUE, lw=1.1, label="fitted")
            ax.set(title=title, xlabel="s")
        axes[0].legend(fontsize=7)
        return png(figure)


def _errors(problem: Problem, unit: Any, found: Identified) -> dict[str, torch.Tensor]:
    starts = descend(problem, unit, problem.zero_starts(), found.solution.noise, iterations=6, fixed=True).starts
    return problem.errors(torch.tensor(unit)[None], starts[None])


def joint_path(joint: Joint) -> bytes:
    """Logged, commanded, nominal and fitted angle over the held-out part, and the errors."""
    with mpl.rc_context(STYLE):
        figure = Figure(figsize=(9, 4.2), layout="constrained")
        above, below = figure.subplots(2, 1, sharex=True, gridspec_kw={"height_ratios": (2, 1)})
        styles = {"logged": (GREY, 2.4), "nominal servo": (ORANGE, 1.0), "fitted servo": (BLUE, 1.1)}
        for name, path in joint.paths.items():
            color, width = styles.get(name, (GREEN, 0.8))
            above.plot(joint.t_s, path, color=color, lw=width, label=name)
            if name != "logged":
                below.plot(joint.t_s, path - joint.paths["logged"], color=color, lw=0.9)
        above.set_ylabel("angle (rad)")
        above.legend(ncols=4, fontsize=8, loc="lower center", bbox_to_anchor=(0.5, 1.0))
        below.set(xlabel="s of the held-out part", ylabel="error (rad)")
        return png(figure)
