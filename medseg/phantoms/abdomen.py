"""This file draws what lies below a simulated probe: a liver with its neighbours, or a body part without a liver.

The words are those of `medseg.phantoms.scenes`.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import numpy as np
from jaxtyping import Bool, Float32

from medseg.phantoms.probes import View
from medseg.phantoms.scenes import LIVER, MASS, Part, Scene, SceneKind, skin_depth
from medseg.phantoms.shapes import Both, Ellipsoid, Liver, Points, Slab, Tubes

MassKind = Literal["none", "dark", "bright", "cyst", "target"]
MASSES: tuple[MassKind, ...] = ("none", "dark", "bright", "cyst", "target")
WITHOUT_LIVER: tuple[SceneKind, ...] = ("thyroid", "muscle", "water")
_LIVER_SHARE = 0.2, 0.7
"""Smallest and largest share of the sector that the liver takes: the real images of the project have .2 to .55."""
_TRIES = 60
_MIRROR_LOSS_DB = 5.0, 17.0
"""What a mirror image behind the diaphragm has lost, from a good mirror to a poor one."""
_SHADOW_LOSS = 90.0
"""Loss (dB a cm) in bone and gas: nothing comes back from behind it."""
_CHANCES = {"kidney": 0.4, "gallbladder": 0.3, "gas": 0.5, "vessels": 0.35}
"""How often each neighbour of the liver is in the picture."""


def draw_scene(rng: np.random.Generator, view: View, kind: SceneKind, mass: MassKind) -> Scene:
    """A scene that suits the view: with a liver that takes a usual share of the sector, or without one."""
    if kind != "liver":
        return Scene(kind, tuple(_other_parts(rng, view, kind)))
    polar = view.beam_grid(40, 40)
    x, z = view.positions(polar)
    points = Points(x, np.zeros_like(x), z, skin_depth(polar, z))
    area = (view.radius_mm + polar[0]) / float((view.radius_mm + polar[0]).sum())
    for _ in range(_TRIES):
        wall, top = _body_wall(rng, view)
        liver = _draw_liver(rng, view, top)
        share = float(area[liver(points) < 0].sum())
        if _LIVER_SHARE[0] <= share <= _LIVER_SHARE[1]:
            break
    parts, facts = _neighbours(rng, view, liver, points)
    parts += _liver_parts(rng, view, liver)
    parts.append(Part("diaphragm", _Diaphragm(liver), 12.0, 3.0, 0, 0, 1.5, 31.0))
    if mass != "none":
        parts += _mass_parts(rng, liver, points, mass, facts)
    mirror = float(rng.uniform(*_MIRROR_LOSS_DB))
    return Scene("liver", (*parts, *wall), liver, mirror, {"liver_share": round(share, 3), **facts})


def _body_wall(rng: np.random.Generator, view: View) -> tuple[list[Part], float]:
    """Skin, fat and muscle in stripes, and the depth (mm) of the liver below them."""
    thick = 1.0 if view.kind != "linear" else 0.6
    skin = float(rng.uniform(1.4, 2.6))
    fat = skin + float(rng.uniform(3, 13)) * thick
    muscle = fat + float(rng.uniform(5, 13)) * thick
    waves = [(float(rng.uniform(0, 1.3)), float(rng.uniform(0, 6)), float(rng.normal(0, 0.03))) for _ in range(2)]
    fat_db, muscle_db = float(rng.uniform(-4, 3)), float(rng.uniform(-8, -2))
    parts = [
        Part("muscle", Slab(fat, muscle, *waves[0]), muscle_db, 1, 0, 7, 0.4, rim_db=13.0),
        Part("fat", Slab(skin, fat, *waves[1]), fat_db, 1, 0, 7, 0.3, rim_db=11.0),
        Part("skin", Slab(-1, skin), 13.0, 0, 0, 3, 0.5, rim_db=18.0),
    ]
    if view.kind == "curved" and rng.random() < 0.22:
        x = float(rng.choice([-1, 1]) * rng.uniform(0.35, 0.8)) * view.radius_mm * np.sin(view.half_angle)
        z = (fat + muscle) / 2 - x**2 / 2 / view.radius_mm
        rib = Ellipsoid((x, 0, z), (float(rng.uniform(4, 7)), 3.0, 60.0))
        parts.append(Part("rib", rib, 4.0, loss=_SHADOW_LOSS, rim_db=26.0))
    return parts, muscle + float(rng.uniform(0, 3))


def _draw_liver(rng: np.random.Generator, view: View, top: float) -> Liver:
    deepest = float(rng.uniform(0.68, 1.0)) * view.depth_mm
    if view.kind == "linear":
        deepest = float(rng.uniform(1.1, 1.6)) * view.depth_mm
    radius = float(rng.uniform(65, 115))
    centre_x = float(rng.uniform(-14, 26))
    # The visceral surface runs from the edge of the liver at the right down to the left.
    reach = (view.radius_mm + top) * np.sin(view.half_angle)
    edge = (float(rng.uniform(0.4, 2.2)) * reach, top + float(rng.uniform(0, 12)))
    return Liver(
        top=top,
        dome=(centre_x, float(rng.uniform(-8, 8)), deepest - radius, radius),
        edge=edge,
        angle=float(np.deg2rad(rng.uniform(6, 55))),
        bend=float(rng.uniform(-0.001, 0.003)),
        ripple=(float(rng.uniform(0, 2.0)), float(rng.uniform(0, 6))),
        lean=float(rng.uniform(-0.35, 0.35)),
    )


def _liver_parts(rng: np.random.Generator, view: View, liver: Liver) -> list[Part]:
    """The liver, its capsule, portal branches with bright walls and hepatic veins without."""
    loss = float(rng.uniform(0.5, 1.4)) if rng.random() < 0.25 else float(rng.uniform(-0.1, 0.2))
    whole = Part("liver", liver, 0.0, float(rng.uniform(0.6, 1.5)), float(rng.uniform(1, 3)), 0, loss, 13.0, LIVER)
    parts = [whole]
    scale = float(np.clip(view.depth_mm / 120, 0.4, 1))
    hilum = _on_visceral(liver, float(rng.uniform(0.3, 0.6)) * view.depth_mm)
    portal = Both(_tree(rng, hilum, liver.angle + np.pi + rng.uniform(-0.6, 0.6), scale), liver, 7.0)
    parts.append(Part("portal vein", portal, -24.0, 0, 0, 0, -0.4, 13.0, None, True))
    turn = float(rng.uniform(-0.25, 0.45))
    cx, cy, cz, radius = liver.dome
    root = (cx + (radius - 3) * np.sin(turn), cy * 0.3, cz + (radius - 3) * np.cos(turn))
    for number in range(int(rng.integers(1, 4))):
        angle = -np.pi / 2 - turn + (number - 1) * 0.6 + rng.uniform(-0.25, 0.25)
        vein = Both(_tree(rng, root, angle, 0.7 * scale), liver)
        parts.append(Part("hepatic vein", vein, -26.0, 0, 0, 0, -0.4, 2.0, None, True))
    return parts


def _tree(rng: np.random.Generator, root: tuple[float, float, float], angle: float, scale: float) -> Tubes:
    """A vessel that forks a few times; it stays close to the plane of the picture. Large ones have a scale of 1."""
    pieces = []
    open_ends = [(np.asarray(root, float), float(angle), scale * float(rng.uniform(4, 6)), 0)]
    while open_ends:
        start, heading, wide, order = open_ends.pop()
        for _ in range(2):
            length = scale * float(rng.uniform(9, 20))
            step = np.array([np.cos(heading), rng.uniform(-0.3, 0.3), np.sin(heading)])
            end, narrow = start + length * step, wide * 0.92
            pieces.append((tuple(start.tolist()), tuple(end.tolist()), wide, narrow))
            start, wide, heading = end, narrow, heading + float(rng.normal(0, 0.18))
        if order < 3 and wide > 0.8 * scale:
            spread = float(rng.uniform(0.35, 0.8))
            open_ends.append((start, heading + spread, wide * 0.72, order + 1))
            open_ends.append((start, heading - spread * 0.7, wide * 0.82, order + 1))
    return Tubes(tuple(pieces))


def _on_visceral(liver: Liver, z: float) -> tuple[float, float, float]:
    """The point of the visceral surface at a depth."""
    x = np.linspace(-150, 150, 301, dtype=np.float32)
    level = np.full_like(x, z)
    distance = liver.to_visceral(Points(x, np.zeros_like(x), level, level))
    return float(x[np.argmin(np.abs(distance))]), 0.0, z


def _neighbours(
    rng: np.random.Generator, view: View, liver: Liver, points: Points
) -> tuple[list[Part], dict[str, object]]:
    """Fat and bowel, and by chance kidney, gallbladder, great vessels and bowel gas."""
    parts = _patches(rng, view, liver)
    has = {name: bool(rng.random() < chance) for name, chance in _CHANCES.items()}
    if view.kind == "linear":
        has = dict.fromkeys(has, False)
    normal = np.array([np.cos(liver.angle), np.sin(liver.angle)])
    tangent = float(liver.angle - np.pi / 2)
    if has["vessels"]:
        at = _on_visceral(liver, float(rng.uniform(0.55, 0.8)) * view.depth_mm)
        for offset, radius in ((14.0, rng.uniform(7, 10)), (36.0, rng.uniform(6, 9))):
            x, z = np.array([at[0], at[2]]) + normal * offset + rng.uniform(-6, 6, 2)
            shape = Ellipsoid((float(x), 0, float(z)), (float(radius), float(radius) * 0.85, 80.0), tangent)
            parts.append(Part("great vessel", shape, -26.0, loss=-0.6, rim_db=14.0))
    if has["gas"]:
        at = _on_visceral(liver, float(rng.uniform(0.25, 0.5)) * view.depth_mm)
        for _ in range(int(rng.integers(2, 5))):
            size = float(rng.uniform(7, 15))
            x, z = np.array([at[0], at[2]]) + normal * (size * 0.8 + rng.uniform(6, 16)) + rng.uniform(-9, 9, 2)
            waves = tuple((float(rng.uniform(0.03, 0.12)), float(rng.uniform(0, 6))) for _ in range(4))
            blob = Ellipsoid((float(x), 0, float(z)), (size, size * 0.6, 40.0), tangent, waves)
            parts.append(Part("gas", blob, 8.0, 3, 6, loss=_SHADOW_LOSS, rim_db=27.0, is_gas=True))
    if has["kidney"]:
        at = _on_visceral(liver, float(rng.uniform(0.4, 0.65)) * view.depth_mm)
        half = float(rng.uniform(20, 26))
        x, z = np.array([at[0], at[2]]) + normal * (half * 0.93)
        lie = tangent + float(rng.uniform(-0.2, 0.2))
        long = float(rng.uniform(44, 56))
        waves = ((0.03, float(rng.uniform(0, 6))), (0.02, float(rng.uniform(0, 6))))
        centre = (float(x), float(rng.uniform(-5, 5)), float(z))
        cortex = Ellipsoid(centre, (long, half, 26.0), lie, waves)
        sinus = Ellipsoid(centre, (long * 0.62, half * 0.42, 14.0), lie, ((0.12, 1.0), (0.1, 4.0), (0.1, 2.0)))
        # The capsule's echo reaches the liver; the rest of the kidney stays behind its surface.
        parts.append(Part("kidney", cortex, float(rng.uniform(-7, -3)), 1.5, 1, rim_db=15.0))
        parts.append(Part("kidney sinus", sinus, float(rng.uniform(6, 10)), 3, 5))
    if has["gallbladder"]:
        at = _on_visceral(liver, float(rng.uniform(0.32, 0.5)) * view.depth_mm)
        half = float(rng.uniform(8, 14))
        x, z = np.array([at[0], at[2]]) + normal * half * 1.05
        shape = Ellipsoid(
            (float(x), 0, float(z)), (half * float(rng.uniform(1.6, 2.6)), half, 16.0), tangent, ((0.06, 0),)
        )
        parts.append(Part("gallbladder", shape, -44.0, 0, 0, 0, -2.2, 17.0))
    return parts, dict(has)


@dataclass(frozen=True)
class _Diaphragm:
    """A shell of 2.2 mm around the dome where the liver touches it."""

    liver: Liver

    def __call__(self, points: Points) -> Float32[np.ndarray, "*n"]:
        # Beyond the dome points are folded into it, so the shell lies on its inner side.
        shell = -2.2 - self.liver.to_dome(points)
        beside = np.maximum(self.liver.to_visceral(points) - 5, self.liver.top - points.layer)
        return np.maximum(shell, beside).astype(np.float32)


def _patches(rng: np.random.Generator, view: View, liver: Liver) -> list[Part]:
    """Fat, bowel and muscle behind the liver: patches of different brightness."""
    normal = np.array([np.cos(liver.angle), np.sin(liver.angle)])
    patches = []
    for _ in range(int(rng.integers(7, 13))):
        at = _on_visceral(liver, float(rng.uniform(0.2, 1.1)) * view.depth_mm)
        x, z = np.array([at[0], at[2]]) + normal * float(rng.uniform(0, 70)) + rng.uniform(-10, 10, 2)
        long, angle = float(rng.uniform(12, 40)), float(liver.angle - np.pi / 2 + rng.normal(0, 0.5))
        waves = tuple((float(rng.uniform(0, 0.12)), float(rng.uniform(0, 6))) for _ in range(4))
        shape = Ellipsoid((float(x), 0, float(z)), (long, long * float(rng.uniform(0.25, 0.7)), 60.0), angle, waves)
        rim = float(rng.uniform(8, 18)) if rng.random() < 0.5 else None
        patches.append(Part("patch", shape, float(rng.uniform(-11, 9)), 3, float(rng.uniform(2, 9)), rim_db=rim))
    return patches


def _mass_parts(
    rng: np.random.Generator, liver: Liver, points: Points, kind: MassKind, facts: dict[str, object]
) -> list[Part]:
    """One mass that lies in the liver; none where the liver has no room for it."""
    depth_inside = -liver(points)
    scale = float(np.clip(points.z.max() / 120, 0.4, 1))
    for size in (scale * float(np.exp(rng.uniform(np.log(6), np.log(28)))), 6.0 * scale, 4.0 * scale):
        room = np.argwhere((depth_inside > 0.8 * size) & _inner(points.x.shape))
        if len(room):
            break
    else:
        return []
    at = tuple(room[rng.integers(len(room))].tolist())
    centre = (float(points.x[at]), float(rng.uniform(-0.2, 0.2)) * size, float(points.z[at]))
    axes = (size, size * float(rng.uniform(0.7, 1.0)), size)
    waves = tuple((float(rng.uniform(0, 0.06)) * (kind != "cyst"), float(rng.uniform(0, 6))) for _ in range(4))
    outline = Ellipsoid(centre, axes, float(rng.uniform(0, 3)), waves)
    shape = Both(outline, liver)
    facts |= {"mass_radius_mm": round(size, 1), "mass_xyz_mm": [round(value, 1) for value in centre]}
    if kind == "cyst":
        return [Part("mass", shape, -44.0, 0, 0, 0, -2.5, 14.0, MASS)]
    if kind == "dark":
        return [Part("mass", shape, float(rng.uniform(-9, -5)), 2.5, 2, 0, 0.2, None, MASS)]
    if kind == "bright":
        return [Part("mass", shape, float(rng.uniform(5, 9)), 1.5, 1, 0, 0.0, None, MASS)]
    core = Both(Ellipsoid(centre, (0.75 * axes[0], 0.75 * axes[1], 0.75 * axes[2]), outline.angle, waves), liver)
    return [
        Part("mass", shape, -10.0, 1.0, 0, 0, 0.1, None, MASS),
        Part("core", core, float(rng.uniform(0, 5)), 3.0, 4, 0, 0.2, None, MASS),
    ]


def _inner(shape: tuple[int, ...]) -> Bool[np.ndarray, "r l"]:
    """Samples of a coarse grid of beams that are not at its border."""
    inner = np.zeros(shape, bool)
    inner[4:-3, 4:-4] = True
    return inner


def _other_parts(rng: np.random.Generator, view: View, kind: SceneKind) -> list[Part]:
    """Body parts, or a test bath, that hold no liver."""
    depth = view.depth_mm
    if kind == "water":
        wall = float(rng.uniform(0.6, 0.9)) * depth
        target = Ellipsoid((float(rng.uniform(-15, 15)), 0, wall * 0.6), (depth * 0.07, depth * 0.07, 50.0))
        return [
            Part("membrane", Slab(-1, 1.5), 8.0, 0, 0, 2, 0.2, 20.0),
            Part("target", target, float(rng.uniform(-4, 6)), 1, 0, 0, 0.3, 16.0),
            Part("bottom", Slab(wall, wall + 6), 4.0, 2, 0, 4, 12.0, 28.0),
        ]
    parts, top = _body_wall(rng, view)
    if kind == "muscle":
        layers, at = [], top
        while at < depth:
            next_at = at + float(rng.uniform(0.1, 0.25)) * depth
            slab = Slab(at, next_at, float(rng.uniform(0.5, 4)), float(rng.uniform(0, 6)))
            layers.append(Part("muscle", slab, float(rng.uniform(-9, 0)), 2, 4, 9, 0.7, 17.0))
            at = next_at
        bone = Slab(0.75 * depth, 0.78 * depth, float(rng.uniform(1, 5)), float(rng.uniform(0, 6)))
        return [*layers, Part("bone", bone, 8.0, 2, loss=_SHADOW_LOSS, rim_db=28.0), *parts]
    side, lobe = float(rng.choice([-1, 1])), 0.2 * depth
    x, z = side * depth * 0.12, top + lobe
    lobes = Ellipsoid((x, 0, z), (lobe * 1.15, lobe * 0.8, 40.0), 0.3 * side, ((0.06, 1.0), (0.04, 3.0)))
    carotid = Ellipsoid((x + side * lobe * 1.6, 0, z + 0.2 * lobe), (lobe * 0.45, lobe * 0.42, 90.0))
    trachea = Ellipsoid((x - side * lobe * 2.0, 0, z), (lobe * 0.9, lobe * 0.8, 90.0))
    return [
        Part("thyroid", lobes, 4.0, 1.2, 1, 0, 0.1, 13.0),
        Part("carotid", carotid, -34.0, 0, 0, 0, -1.0, 17.0),
        Part("trachea", trachea, 6.0, 2, 3, loss=_SHADOW_LOSS, rim_db=26.0, is_gas=True),
        *parts,
    ]
