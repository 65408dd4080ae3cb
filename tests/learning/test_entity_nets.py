"""Policies over entities: torch's own attention, loops over rows and members, symmetries, and what absence changes."""

import dataclasses
import math
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from controllers.artifact import Card, PolicyArtifact
from controllers.interface import Field, Interface
from hardware.errors import BadInput, NotFoundError
from hardware.spec import load_spec
from robo_rl.config import PPOConfig
from robo_rl.entity_nets import DeepSets, Projections, Typed, Widths
from robo_rl.export_c.source import write_c
from robo_rl.export_policy import export_policy
from robo_rl.layout import Layout, Part, layout_of
from robo_rl.nets import MLP, pulled
from robo_rl.norm import RunningNorm
from robo_rl.policy_nets import NetShape, build, parameter_count, shape_of
from robo_rl.two_token import TwoToken
from sim.registry import scene_entry

FIELDS = (
    Field("error", "error", 5, "m"),
    Field("offset", "neighbour_position", 9, "m", entity="neighbour", members=3),
    Field("grid", "obstacle_grid_yaw", 9, "m", entity="obstacle"),
    Field("closing", "neighbour_closing", 3, "m/s", entity="neighbour", members=3, history=2),
    Field("there", "neighbour_present", 3, "1", entity="neighbour", members=3),
    Field("axis", "obstacle_direction", 4, "1", entity="obstacle", members=2),
    Field("near", "obstacle_present", 2, "1", entity="obstacle", members=2),
)
LAYOUT = layout_of(FIELDS)
NEIGHBOURS, GRID, OBSTACLES = LAYOUT.parts
PAPER = layout_of(
    (
        Field("self", "self", 19, "1"),
        Field("n", "n", 12, "1", entity="neighbour", members=2),
        Field("grid", "grid", 9, "m", entity="obstacle"),
    )
)
KINDS = ("two_token", "typed", "deep_sets")


def made(kind: str, layout: Layout = LAYOUT, activation: str = "elu", token: int = 6, heads: int = 2) -> nn.Module:
    """A network whose every parameter is far from its start, in double precision."""
    net = build(NetShape(kind, layout, 4, activation, widths=Widths(token, heads, 11)))
    net = net.double()
    weights = torch.Generator().manual_seed(1)
    with torch.no_grad():
        for p in net.parameters():
            p.copy_(torch.randn(p.shape, generator=weights, dtype=p.dtype) * 0.5)
    return net


def rows(count: int, seed: int = 0, layout: Layout = LAYOUT) -> Tensor:
    """Observations with some members absent."""
    noise = torch.Generator().manual_seed(seed)
    x = torch.randn(count, layout.size, generator=noise, dtype=torch.float64)
    flags = list(layout.flags)
    x[:, flags] = (torch.rand(count, len(flags), generator=noise) > 0.4).double()
    return x


def test_columns_of_fields_with_members_and_histories_by_hand() -> None:
    # error 0-4 | offset 5-13 | grid 14-22 | closing 23-25, older 26-28 | there 29-31 | axis 32-35 | near 36-37
    assert LAYOUT.own == (0, 1, 2, 3, 4)
    assert LAYOUT.parts == (
        Part("neighbour", ((5, 6, 7, 23, 26), (8, 9, 10, 24, 27), (11, 12, 13, 25, 28)), (29, 30, 31)),
        Part("obstacle", (tuple(range(14, 23)),)),
        Part("obstacle", ((32, 33), (34, 35)), (36, 37)),
    )
    assert LAYOUT.entities == ("neighbour", "obstacle")
    assert LAYOUT.flags == (29, 30, 31, 36, 37)
    assert LAYOUT.alike == ((5, 8, 11), (6, 9, 12), (7, 10, 13), (23, 24, 25), (26, 27, 28), (32, 34), (33, 35))
    assert LAYOUT.size == 38


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ((dataclasses.replace(FIELDS[4], scale=2.0),), "field there: expected one unscaled flag per member"),
        ((dataclasses.replace(FIELDS[4], size=6),), "field there: expected one unscaled flag per member"),
        ((FIELDS[4], dataclasses.replace(FIELDS[4], name="again")), "field again: expected one unscaled flag"),
        ((FIELDS[4],), "3 members of 'neighbour' have a presence flag and no other number"),
    ],
)
def test_flags_that_cannot_mask_are_refused(fields: tuple[Field, ...], message: str) -> None:
    with pytest.raises(BadInput, match=message):
        layout_of(fields)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("activation", ["elu", "relu", "tanh"])
@torch.no_grad()
def test_a_batch_is_its_rows_one_by_one(kind: str, activation: str) -> None:
    """The public code of the paper pairs rows wrongly in batches (its per-neighbour attention repeats in tiles)."""
    net, x = made(kind, activation=activation), rows(17)
    torch.testing.assert_close(net(x), torch.cat([net(row[None]) for row in x]), rtol=1e-12, atol=1e-12)


def test_two_tokens_are_torchs_attention_of_the_papers_encodings() -> None:
    net = made("two_token", PAPER, token=8, heads=4)
    assert isinstance(net, TwoToken)
    theirs = nn.MultiheadAttention(8, 4, bias=False, batch_first=True, dtype=torch.float64)
    projections = [f.weight.data for f in (net.project.query, net.project.key, net.project.value)]
    with torch.no_grad():
        theirs.in_proj_weight.copy_(torch.cat(projections))
        theirs.out_proj.weight.copy_(net.mixer.out.weight)
    norm = nn.LayerNorm(8, eps=1e-6, dtype=torch.float64)
    norm.weight, norm.bias = net.mixer.norm_weight, net.mixer.norm_bias
    x = rows(9, layout=PAPER)
    neighbours, obstacles = net.encoders
    # Member by member: the paper's vector of neighbours. Here the only field already lies so.
    tokens = torch.stack([neighbours(x[:, 19:31]), obstacles(x[:, 31:])], 1)
    mixed = norm(tokens + theirs(tokens, tokens, tokens, need_weights=False)[0])
    joined = torch.cat([net.own(x[:, :19]), mixed[:, 0], mixed[:, 1]], 1)
    expected = F.linear(F.elu(F.linear(joined, net.dense.weight, net.dense.bias)), net.last.weight, net.last.bias)
    torch.testing.assert_close(net(x), expected, rtol=1e-12, atol=1e-12)


@torch.no_grad()
def test_typed_attention_is_a_loop_over_the_tokens_that_are_present() -> None:
    net = made("typed")
    assert isinstance(net, Typed)
    projections = [f for f in net.projections if isinstance(f, Projections)]
    for x in rows(12, seed=3):
        # (type, token) of the robot, the neighbours, the grid and the obstacles that exist
        tokens: list[tuple[int, Tensor]] = [(0, net.encoders[0](x[list(LAYOUT.own)]))]
        for kind, part in enumerate(LAYOUT.parts, start=1):
            there = [m for m in range(part.members) if not part.present or x[part.present[m]] == 1.0]
            tokens += [(kind, net.encoders[kind](x[list(part.columns[m])])) for m in there]
        mixed: list[Tensor] = []
        for kind, token in tokens:
            heads: list[Tensor] = []
            for h in range(2):
                cut = slice(3 * h, 3 * h + 3)
                query = projections[kind].query(token)[cut]
                keys = [projections[k].key(t)[cut] for k, t in tokens]
                values = [projections[k].value(t)[cut] for k, t in tokens]
                scores = [math.exp(float(query @ key) / math.sqrt(3.0)) for key in keys]
                heads.append(sum((s / sum(scores)) * v for s, v in zip(scores, values, strict=True)) + torch.zeros(3))
            out = token + net.mixer.out(torch.cat(heads))
            away = out - out.mean()
            out = away / torch.sqrt((away * away).mean() + 1e-6) * net.mixer.norm_weight + net.mixer.norm_bias
            mixed.append(out)
        read = [mixed[0]]
        for kind in (1, 2, 3):
            of_kind = [out for (k, _), out in zip(tokens, mixed, strict=True) if k == kind]
            read.append(sum(of_kind) / len(of_kind) + torch.zeros(6) if of_kind else torch.zeros(6))
        expected = net.last(F.elu(net.dense(torch.cat(read))))
        torch.testing.assert_close(net(x[None])[0], expected, rtol=1e-10, atol=1e-10)


def test_deep_sets_by_hand() -> None:
    """One number each, tokens of one, relu and unit weights: only sums and a mean remain."""
    fields = (
        Field("a", "a", 1, "1"),
        Field("b", "b", 3, "1", entity="other", members=3),
        Field("there", "other_present", 3, "1", entity="other", members=3),
    )
    net = build(NetShape("deep_sets", layout_of(fields), 1, "relu", widths=Widths(1, 1, 1)))
    assert isinstance(net, DeepSets)
    with torch.no_grad():
        for p in net.parameters():
            p.fill_(1.0)
    # own 2 -> 3 -> 4. Members 1 and 5 -> 3 and 7, mean 5; the one in between is absent. 4 + 5 + 1 = 10, + 1 = 11.
    # Nobody there: 4 + 0 + 1 = 5, + 1 = 6.
    x = torch.tensor([[2.0, 1.0, 9.0, 5.0, 1.0, 0.0, 1.0], [2.0, 1.0, 9.0, 5.0, 0.0, 0.0, 0.0]])
    assert net(x).flatten().tolist() == [11.0, 6.0]


def permuted(x: Tensor, part: Part, order: list[int]) -> Tensor:
    """The same observation with a part's members in another order."""
    y = x.clone()
    for to, source in enumerate(order):
        y[:, list(part.columns[to])] = x[:, list(part.columns[source])]
        if part.present:
            y[:, part.present[to]] = x[:, part.present[source]]
    return y


@pytest.mark.parametrize("kind", ["typed", "deep_sets"])
def test_the_order_of_members_does_not_matter(kind: str) -> None:
    net, x = made(kind), rows(40)
    for part, order in ((NEIGHBOURS, [2, 0, 1]), (OBSTACLES, [1, 0])):
        torch.testing.assert_close(net(permuted(x, part, order)), net(x), rtol=1e-12, atol=1e-12)


def test_tokens_of_members_move_with_them() -> None:
    """Equivariance inside: what attention says of a member goes where the member goes."""
    net = made("typed")
    assert isinstance(net, Typed)
    seen: list[Any] = []
    net.mixer.register_forward_hook(lambda _m, _i, out: seen.append(out))
    x = rows(10)
    net(x)
    net(permuted(x, NEIGHBOURS, [2, 0, 1]))
    torch.testing.assert_close(seen[1][:, 1:4], seen[0][:, [3, 1, 2]], rtol=1e-12, atol=1e-12)
    torch.testing.assert_close(seen[1][:, [0, 4, 5, 6]], seen[0][:, [0, 4, 5, 6]], rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("kind", KINDS)
def test_an_absent_member_changes_nothing_and_gets_no_gradient(kind: str) -> None:
    net, x = made(kind), rows(30)
    other = x.clone()
    for part in (NEIGHBOURS, OBSTACLES):
        for columns, flag in zip(part.columns, part.present, strict=True):
            gone = x[:, flag] == 0.0
            assert gone.any()
            other[:, list(columns)] += 1e3 * gone[:, None]
    assert torch.equal(net(other), net(x))
    x.requires_grad_()
    net(x).sum().backward()
    assert x.grad is not None
    for part in (NEIGHBOURS, OBSTACLES):
        for columns, flag in zip(part.columns, part.present, strict=True):
            there = x[:, flag] == 1.0
            assert (x.grad[~there][:, list(columns)] == 0.0).all()
            assert (x.grad[there][:, list(columns)] != 0.0).any()


@pytest.mark.parametrize("kind", KINDS)
def test_gradients_are_those_of_finite_differences(kind: str) -> None:
    net = made(kind, activation="tanh", token=3, heads=2)
    x = rows(3, seed=5)
    names, values = zip(*net.named_parameters(), strict=True)

    def value(*parameters: Tensor) -> Tensor:
        return torch.func.functional_call(net, dict(zip(names, parameters, strict=True)), (x,))

    assert torch.autograd.gradcheck(value, tuple(v.detach().clone().requires_grad_() for v in values))


@pytest.mark.parametrize("layout", [LAYOUT, PAPER], ids=["flags", "paper"])
@pytest.mark.parametrize("activation", ["elu", "relu", "tanh"])
@pytest.mark.parametrize("count", [1, 33])
def test_the_pass_by_hand_is_that_of_the_graph(layout: Layout, activation: str, count: int) -> None:
    net = made("two_token", layout, activation, token=6, heads=4)
    x = rows(count, seed=8, layout=layout)
    before = x.clone()
    grad = torch.randn(count, 4, dtype=torch.float64)
    out = net(x)
    out.backward(grad)
    expected = [p.grad for p in net.parameters()]
    for p in net.parameters():
        p.grad = torch.full_like(p, math.nan)  # overwritten, not added to
    result, back = pulled(net, x)
    back(grad)
    torch.testing.assert_close(result, out.detach(), rtol=1e-12, atol=1e-12)
    for (name, p), theirs in zip(net.named_parameters(), expected, strict=True):
        torch.testing.assert_close(p.grad, theirs, rtol=1e-9, atol=1e-10, msg=lambda m, name=name: f"{name}: {m}")
    with torch.no_grad():
        assert torch.equal(net(x), result)
    assert torch.equal(x, before)


def encoder(inputs: int, width: int) -> int:
    return (inputs + 1) * width + (width + 1) * width


def by_formula(kind: str, d: int, heads: int, dense: int) -> int:
    """Parameters of the networks on `LAYOUT`: 5 own numbers; 3 x 5, 1 x 9 and 2 x 2 of others."""
    attention = d * heads * math.ceil(d / heads)
    if kind == "two_token":
        encoders = encoder(5, d) + encoder(15, d) + encoder(9 + 4, d)
        return encoders + 4 * attention + 2 * d + (3 * d + 1) * dense + (dense + 1) * 4
    encoders = encoder(5, d) + encoder(5, d) + encoder(9, d) + encoder(2, d)
    shared = (4 * 3 + 1) * attention + 2 * d if kind == "typed" else 0
    return encoders + shared + (4 * d + 1) * dense + (dense + 1) * 4


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize(("d", "heads", "dense"), [(1, 1, 1), (6, 4, 9), (16, 4, 32)])
def test_parameters_are_as_many_as_the_formula_says(kind: str, d: int, heads: int, dense: int) -> None:
    shape = NetShape(kind, LAYOUT, 4, "elu", widths=Widths(d, heads, dense))
    count = sum(p.numel() for p in build(shape).parameters())
    assert count == parameter_count(shape) == by_formula(kind, d, heads, dense)


@pytest.mark.parametrize(("width", "count"), [(10, 1964), (16, 4260), (32, 15172), (64, 56964), (256, 866820)])
def test_sizes_of_the_papers_network(width: int, count: int) -> None:
    """19 own numbers, 2 x 6 of neighbours, 9 distances; 256 wide is the paper's, with 4 heads of 64."""
    shape = shape_of(PPOConfig(network="two_token", token_width=width), PAPER, 4)
    assert shape.widths == Widths(width, 4, 2 * width)
    assert parameter_count(shape) == count
    if width == 256:
        assert Widths(width, 4, 512).head == 64
        assert build(shape)(torch.zeros(2, 40)).shape == (2, 4)


@pytest.mark.parametrize("limit", [1200, 2000, 5000, 20_000, 868_000])
def test_kinds_are_compared_at_equal_size(limit: int) -> None:
    for kind in ("mlp", *KINDS):
        shape = shape_of(PPOConfig(network=kind, parameters=limit), LAYOUT, 4)
        assert 0.96 * limit <= parameter_count(shape) <= limit


def test_an_mlp_of_given_size_keeps_its_number_of_layers() -> None:
    shape = shape_of(PPOConfig(hidden=(1, 1, 1), parameters=5000), LAYOUT, 4)
    net = build(shape)
    assert isinstance(net, MLP)
    assert sum(p.numel() for p in net.parameters()) == parameter_count(shape)
    assert shape.hidden[0] == shape.hidden[1] <= shape.hidden[2] == 43
    assert shape_of(PPOConfig(), LAYOUT, 4).hidden == (64, 64)


def test_networks_that_cannot_be_are_named() -> None:
    with pytest.raises(BadInput, match=r"algo.parameters = 30; expected at least 80, the smallest network"):
        shape_of(PPOConfig(network="two_token", parameters=30), LAYOUT, 4)
    with pytest.raises(BadInput, match=r"'typed' needs fields .* has 3 numbers of its own and entities: none; use mlp"):
        shape_of(PPOConfig(network="typed"), Layout(3, (0, 1, 2)), 1)
    with pytest.raises(NotFoundError, match="network 'gnn' not found; known: deep_sets, mlp, two_token, typed"):
        shape_of(PPOConfig(network="gnn"), LAYOUT, 4)


def test_the_normaliser_leaves_flags_alone_and_scales_members_alike() -> None:
    x = rows(500).float()
    x[:, list(NEIGHBOURS.columns[0])] *= 3.0  # the nearest member varies otherwise than the rest
    x[:, list(NEIGHBOURS.columns[2])] += 1.0
    x[:, NEIGHBOURS.present[0]] = 1.0  # and is always there
    norm = RunningNorm(LAYOUT.size, flags=LAYOUT.flags, alike=LAYOUT.alike)
    norm.update(x[:200])
    norm.update(x[200:])
    seen = norm.apply(x)
    assert torch.equal(seen[:, list(LAYOUT.flags)], x[:, list(LAYOUT.flags)])
    for group in LAYOUT.alike:
        together = x[:, list(group)].double()
        expected = (together - together.mean()) / (together.std(correction=0) + 1e-2)
        torch.testing.assert_close(seen[:, list(group)].double(), expected, rtol=1e-4, atol=1e-4)
    other = RunningNorm(LAYOUT.size, flags=LAYOUT.flags, alike=LAYOUT.alike)
    other.load(norm.state())
    assert torch.equal(other.apply(x), seen)


SPEC = scene_entry("quadrotor/hover").spec(scene_entry("quadrotor/hover").config)
INTERFACE = Interface(load_spec(SPEC.robot), SPEC.mode, SPEC.observation, SPEC.action)


def deployable() -> Layout:
    """The hover scene's numbers, some of them dressed as two neighbours with flags and one obstacle."""
    size = INTERFACE.group_sizes["policy"]
    neighbours = Part("neighbour", ((4, 8, 6), (5, 9, 7)), (10, 11))
    return Layout(size, (0, 1, 2, 3, *range(14, size)), (neighbours, Part("obstacle", ((12, 13),))))


@pytest.mark.parametrize("kind", KINDS)
def test_the_policy_file_says_what_torch_says_with_operators_that_have_a_c_form(kind: str, tmp_path: Path) -> None:
    layout = deployable()
    shape = shape_of(PPOConfig(network=kind, parameters=5000), layout, 4)
    net = build(shape, generator=torch.Generator().manual_seed(2))
    norm = RunningNorm(layout.size, flags=layout.flags, alike=layout.alike)
    norm.update(rows(500, layout=layout).float())
    card = Card(
        robot=SPEC.robot,
        robot_digest=load_spec(SPEC.robot).digest(),
        mode=SPEC.mode,
        rate_hz=SPEC.rate_hz,
        observation=SPEC.observation,
        action=SPEC.action,
        scene=SPEC.id,
        ranges_digest="0" * 64,
        commit="unknown",
        seed=0,
        algorithm="ppo",
        env_steps=0,
    )
    assert export_policy(tmp_path / "policy.onnx", net, norm, INTERFACE, card) < 1e-5
    footprint = write_c(PolicyArtifact.load(tmp_path / "policy.onnx"), tmp_path / "c")
    assert footprint.parameters >= parameter_count(shape) - 200  # zero biases are not stored


@pytest.mark.parametrize("kind", KINDS)
def test_initial_actions_are_small_and_weights_repeat_with_the_seed(kind: str) -> None:
    shape = shape_of(PPOConfig(network=kind, token_width=16), LAYOUT, 4)
    first, second = (build(shape, generator=torch.Generator().manual_seed(4)) for _ in range(2))
    for p, q in zip(first.parameters(), second.parameters(), strict=True):
        assert torch.equal(p, q)
    assert first(rows(200).float()).abs().max() < 0.1
