"""The swarm task: E rooms with A drones each, as N = A E rows, agent-major (row = a E + e); see sim.env.Task.

An episode belongs to a room: its clock ends all its drones' flights at once, and the room starts anew with another map.
Where a contact ends a flight (in training), that drone alone starts again elsewhere, and the others fly on.
"""

from collections.abc import Mapping

import torch
from torch import Tensor

from controllers.interface import Interface
from hardware.errors import BadInput
from hardware.spec import load_spec
from sim.dynamics import quadrotor as body
from sim.engine import prepared
from sim.env import Verdict
from sim.randomization import Family, draw_bounds, draw_range
from sim.scenes.quadrotor.swarm import critic, records, reward
from sim.scenes.quadrotor.swarm.arena import Bank, draw_bank, free_places, roominess
from sim.scenes.quadrotor.swarm.config import SwarmConfig, check
from sim.scenes.quadrotor.swarm.curriculum import Level
from sim.scenes.quadrotor.swarm.interaction import PARKED_M, RANDOM_ROWS, TORCH, Interaction, Physics
from sim.scenes.quadrotor.swarm.scenarios import PATH_ROWS, scenario
from sim.scenes.quadrotor.world import NOISE, QuadrotorWorlds
from sim.spec import SceneSpec

JITTER_M = 0.1
"""Starts and goals lie in a box of this side around their places."""
MOST_MAPS = 512
OFFERED_PLACES = 64
"""Places from which a scenario chooses starts and goals; some want them near one another."""
SEEN_PLACES = 16
"""Places among which a drone that starts again, and its goal, choose the one with most room."""
ROOMY_M = 1.5


class SwarmTask:
    """The task in N / A rooms."""

    def __init__(
        self,
        num_envs: int,
        *,
        spec: SceneSpec,
        config: SwarmConfig,
        family: Family = "train",
        device: str | torch.device = "cpu",
        physics: Physics = TORCH,
    ) -> None:
        check(config)
        if num_envs % config.drones:
            raise BadInput(f"{num_envs} rows do not make rooms of {config.drones} drones; expected a multiple")
        self.config, self.spec, self.agents = config, spec, config.drones
        self.interface = Interface(load_spec(spec.robot), spec.mode, spec.observation, spec.action)
        self.num_envs, self.device, self.rooms = num_envs, torch.device(device), num_envs // config.drones
        groups = {"disturbances"} if config.disturbances else set()
        neutral = self.interface.command(torch.zeros(1, self.interface.action_size, device=self.device))
        self.worlds = QuadrotorWorlds(
            spec.params,
            draw_bounds(spec.params, family, groups, self.device),
            num_envs,
            starts=_at_rest,
            neutral=neutral[0],
            mode=config.mode,
            rate_hz=spec.rate_hz,
            substeps=5 if config.mode == "attitude_thrust" else 2,
            max_delay_s=draw_range(spec.params["command_delay"], family)[1],
            biased=config.disturbances,
            rotor_gyro=config.rotor_gyro,
            engine=config.engine,
            step=physics.step,
        )
        self.state, self.shared = self.worlds.state, self.worlds.shared
        self.level = Level(config.curriculum, self.shared, self.device)
        self.between = Interaction(config, spec, self.worlds, physics, masked=self.level.masks(config.drones))
        self.state |= self._planes()
        self.shared["bank"] = torch.zeros((), dtype=torch.long)
        """Seed of the maps, which are drawn again from it."""
        self._bank: tuple[int, Bank] | None = None
        self.scenario = scenario(config.scenario)
        self._dt_s, self._end = 1.0 / spec.rate_hz, round(config.episode_s * spec.rate_hz)
        self._room = torch.tensor(config.room_m, device=self.device)
        self._visible = torch.tensor([i for i, n in enumerate(spec.params) if n not in NOISE], device=self.device)
        bounds = draw_bounds(spec.params, "wide", {"disturbances"}, self.device)[self._visible]
        self._middle = bounds.mean(1, keepdim=True)
        self._inverse_span = 2.0 / (bounds[:, 1:] - bounds[:, :1]).clamp(min=1e-12)
        self._interact = prepared(self.between.after_flight, config.engine)
        self._score = prepared(self._score_flat, config.engine)

    def _planes(self) -> dict[str, Tensor]:
        """What the task adds to the worlds' state."""
        n, device = self.num_envs, self.device
        rows = {"path": PATH_ROWS, "goal": 3, "shared": 6, "perceived": sum(self.between.layout.values())}
        rows |= {"facts": len(reward.FACTS), "records": records.ROWS}
        return {name: torch.zeros((count, n), device=device) for name, count in rows.items()} | {
            "touch": torch.zeros((4, n), dtype=torch.bool, device=device),
            "flying": torch.ones(n, dtype=torch.bool, device=device),
            "map": torch.zeros(n, dtype=torch.long, device=device),
            "clock": torch.zeros(n, dtype=torch.long, device=device),
        }

    @property
    def clock(self) -> Tensor:
        """(N,) steps since each row's room began."""
        return self.state["clock"]

    @property
    def alive(self) -> Tensor | None:
        """(N,) bool: drones that fly; None where all always do."""
        return self.state["flying"] if self.level.masks(self.agents) else None

    @property
    def bank(self) -> Bank:
        """The maps."""
        seed = int(self.shared["bank"])
        if self._bank is None or self._bank[0] != seed:
            generator = torch.Generator(device=self.device).manual_seed(seed)
            count = min(MOST_MAPS, max(16, 4 * self.rooms))
            low = self.config.obstacle_diameter_low_m or self.config.obstacle_diameter_m
            share = torch.rand(count, generator=generator, device=self.device)
            radius = 0.5 * (low + share * (self.config.obstacle_diameter_m - low))
            density = self.level.densities(count, self.config.density)
            if self.config.empty > 0.0:
                bare = torch.rand(count, generator=generator, device=self.device) < self.config.empty
                density = torch.where(bare, 0.0, density)
            self._bank = seed, draw_bank(density, radius, self.config.room_m, generator)
        return self._bank[1]

    def bodies(self) -> tuple[Tensor, Tensor]:
        """Mass (N,) in kg and moments of inertia (3, N) in kg m^2 of all drones."""
        return self.between.bodies(self.worlds.params(self.worlds.view(None)))

    def restart(self, ids: Tensor | None, generator: torch.Generator) -> None:
        """New rooms where the clock has run out (all, for None); other rows of `ids` start again within theirs."""
        if ids is None:
            self.shared["bank"] = torch.randint(2**31, (), generator=generator, device=self.device).cpu()
            rooms, alone = torch.arange(self.rooms, device=self.device), None
        else:
            self.level.count(
                records.standing(self.state["records"][:, ids], dt_s=self._dt_s), self.state["flying"][ids]
            )
            over = self.state["clock"][ids] >= self._end
            rooms, alone = ids[over & (ids < self.rooms)], ids[~over]
        if len(rooms) > 0:
            self._begin(rooms, generator, everywhere=ids is None)
        if alone is not None and len(alone) > 0:
            self._begin_again(alone, generator)

    def advance(self, command: Tensor, generator: torch.Generator) -> None:
        """One control period; contacts, downwash and perception follow the flight."""
        s = self.state
        self.worlds.advance(command, generator)
        random = torch.rand((RANDOM_ROWS, self.num_envs), generator=generator, device=self.device)
        s["clock"] = s["clock"] + 1
        names = ("body", "shared", "perceived", "goal", "touch", "facts")
        moving = (s["body"], s["noise"], s["shared"], s["touch"], s["path"], s["clock"])
        fixed = (s["fixed"], s["flying"], s["map"], self.bank.candidates, self.bank.radius)
        s |= dict(zip(names, self._interact(*moving, *fixed, random), strict=True))
        self.level.step(self.num_envs)

    def judge(self, action: Tensor, last_action: Tensor, age: Tensor) -> Verdict:
        """Reward, contacts and both notions of success (only true where an episode ends now)."""
        s = self.state
        factor = self.level.contact_factor
        paid, ended, s["records"], *told = self._score(
            s["body"], s["goal"], s["facts"], s["records"], action, last_action, age, s["clock"], s["flying"], factor
        )
        metrics = {str(name): value for name, value in zip(records.METRICS, told, strict=True)}
        return Verdict(paid, torch.zeros_like(paid), ended, metrics)

    def view(self, ids: Tensor | None) -> dict[str, Tensor]:
        """What the signals of rows `ids` are made of."""
        own = {name: self.state[name] for name in ("perceived", "goal")}
        return self.worlds.view(ids) | (own if ids is None else {k: v[:, ids] for k, v in own.items()})

    def measured(self, view: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """Signals as the drone reports them, and what it perceives."""
        return self.worlds.measured(view) | {n: p.T for n, p in self.between.signals(view["perceived"]).items()}

    def goal(self, view: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """Where each drone is to be now, (n, 3)."""
        return {"position_world": view["goal"].T}

    def privileged(self, view: Mapping[str, Tensor]) -> Tensor:
        """The critic's observation (n, C)."""
        drone = (self.worlds.params(view)[self._visible] - self._middle) * self._inverse_span
        return critic.truth(view["body"], view["goal"], view["command"], self.between.signals(view["perceived"]), drone)

    def stagger(self, age: Tensor, generator: torch.Generator) -> None:
        """Moves the rooms' clocks apart."""
        self.state["clock"] = age[: self.rooms].repeat(self.agents)

    def _begin(self, rooms: Tensor, generator: torch.Generator, *, everywhere: bool) -> None:
        """New maps, starts and goals for whole rooms."""
        agents, count = self.agents, len(rooms)
        ids = (rooms + self.rooms * torch.arange(agents, device=self.device)[:, None]).reshape(-1)
        self.worlds.restart(None if everywhere else ids, generator)
        maps = self.level.choose(count, len(self.bank.count), generator)
        offered = max(2 * agents, min(OFFERED_PLACES, self.config.free_places))
        places = free_places(self.bank, maps, offered, JITTER_M, generator)
        starts, path = self.scenario.draw(places, agents, self._room, generator)
        s = self.state
        s["map"][ids] = maps.repeat(agents)
        s["clock"][ids] = 0
        s["path"][:, ids] = path.reshape(PATH_ROWS, -1)
        order = torch.rand((agents, count), generator=generator, device=self.device).argsort(0).argsort(0)
        s["flying"][ids] = (order < self.level.flying(agents)).reshape(-1)
        self._place(ids, starts.reshape(3, -1), generator)

    def _begin_again(self, ids: Tensor, generator: torch.Generator) -> None:
        """New starts, and new goals where each drone has its own, for single drones of rooms that go on."""
        s, agents = self.state, self.agents
        self.worlds.restart(ids, generator)
        room, itself = ids % self.rooms, ids // self.rooms
        places = free_places(self.bank, s["map"][ids], SEEN_PLACES, JITTER_M, generator)
        apart = torch.arange(agents, device=self.device)[:, None] != itself
        positions = s["body"][:3].reshape(3, agents, -1)[:, :, room]
        index = roominess(places, positions, apart, ROOMY_M).argmax(0)
        start = places.gather(1, index.expand(3, 1, -1))[:, 0]
        if not self.scenario.moving:
            left = roominess(places, s["goal"].reshape(3, agents, -1)[:, :, room], apart, ROOMY_M)
            left.scatter_(0, index[None], 0.0)
            goal = places.gather(1, left.argmax(0).expand(3, 1, -1))[:, 0]
            kept = self._sharing(s["goal"])[ids]
            s["path"][:3, ids] = torch.where(kept, s["path"][:3, ids], goal)
        self._place(ids, start, generator)

    def _place(self, ids: Tensor, position: Tensor, generator: torch.Generator) -> None:
        """Rows at rest at a position (3, n) with a random heading; what they perceive is worked out for them alone."""
        s = self.state
        half_yaw = torch.pi * (torch.rand(len(ids), generator=generator, device=self.device) - 0.5)
        zero = torch.zeros_like(half_yaw)
        parked = torch.stack([zero, zero, -PARKED_M - 10.0 * (ids // self.rooms)])
        s["body"][:3, ids] = torch.where(s["flying"][ids], position, parked)
        s["body"][6:10, ids] = torch.stack([half_yaw.cos(), zero, zero, half_yaw.sin()])
        s["touch"][:, ids] = False
        s["records"][:, ids] = records.begin(len(ids), s["body"])
        s["facts"][:, ids] = 0.0
        s["goal"][:, ids] = self.scenario.goal(s["path"][:, ids], s["clock"][ids] * self._dt_s)
        measured = self.worlds.measured(self.worlds.view(ids))
        s["shared"][:, ids] = torch.cat([measured["position_world"].T, measured["velocity_world"].T])
        room = (ids % self.rooms).unique()
        whole = (room + self.rooms * torch.arange(self.agents, device=self.device)[:, None]).reshape(-1)
        seen = self.between.perceived(
            self.worlds.measured(self.worlds.view(whole)),
            s["shared"][:, whole],
            s["flying"][whole],
            s["map"][whole],
            self.bank.candidates,
            self.bank.radius,
        )
        slot = torch.full((self.num_envs,), -1, device=self.device)
        slot[whole] = torch.arange(len(whole), device=self.device)
        s["perceived"][:, ids] = seen[:, slot[ids]]

    def _score_flat(
        self,
        state: Tensor,
        goal: Tensor,
        facts: Tensor,
        kept: Tensor,
        action: Tensor,
        last_action: Tensor,
        age: Tensor,
        clock: Tensor,
        flying: Tensor,
        factor: Tensor,
    ) -> tuple[Tensor, ...]:
        """Reward, termination, records and metrics; pure."""
        config = self.config
        error = goal - state[body.POSITION]
        distance = torch.sqrt((error * error).sum(0) + 1e-12)
        velocity = state[body.VELOCITY]
        speed = torch.sqrt((velocity * velocity).sum(0) + 1e-12)
        progress = (error * velocity).sum(0) / distance
        paid = reward.reward(
            state, facts, distance, speed, progress, action, action - last_action, factor, weights=config.weights
        )
        kept = records.keep(
            kept, facts[:4] > 0.5, distance, speed, facts[8], age, clock, dt_s=self._dt_s, end=self._end
        )
        told = records.standing(kept, dt_s=self._dt_s)
        touching = (facts[4:8] > 0.5).any(0)
        ended = ~torch.isfinite(distance)
        if config.contact_ends:
            ended = ended | touching
        ended = ended & flying
        over = (clock >= self._end) | ended
        radius = torch.where(self._sharing(goal), max(0.40, config.radius_m), config.radius_m)
        if config.success_radius_m is not None:
            radius = torch.full_like(distance, config.success_radius_m)
        lasting = clock >= self._end
        metrics = records.metrics(told, distance, radius, lasting, over)
        return paid, ended, kept, *(metrics[name] for name in records.METRICS)

    def _sharing(self, goal: Tensor) -> Tensor:
        """(N,) bool: rows of rooms whose drones all have one goal."""
        if self.agents == 1:
            return torch.zeros(goal.shape[1], dtype=torch.bool, device=goal.device)
        g = goal.reshape(3, self.agents, -1)
        return (g == g[:, :1]).all(0).all(0).repeat(self.agents)


def _at_rest(params: Mapping[str, Tensor], count: int, generator: torch.Generator) -> Tensor:
    """Level, at the origin, rotors at hover."""
    state = body.rest_state((count,), params["mass"])
    state[body.ROTOR] = body.hover_command(params).clamp(max=1.0)
    return state
