"""Product pictures: flat drawings, made with Pillow, the same pixels every time.

A drawing is a function on a square of 100 x 100 units; each motif exists in `VARIANTS` colourings. Products
of one kind share them, as 10,000 products would not be drawn within seconds.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

from PIL import Image, ImageDraw

VARIANTS = 2
SIZE = 480
_OVERSAMPLING = 2

Colour = tuple[int, int, int]


@dataclass(frozen=True, slots=True)
class Palette:
    """Background at the top and bottom, main colour, its shade, its light, and an accent."""

    sky: Colour
    floor: Colour
    main: Colour
    dark: Colour
    light: Colour
    accent: Colour


PALETTES = (
    Palette((244, 238, 228), (226, 212, 192), (196, 98, 66), (140, 62, 42), (226, 148, 112), (45, 74, 83)),
    Palette((232, 240, 238), (200, 218, 214), (62, 124, 120), (36, 82, 82), (120, 176, 166), (232, 176, 84)),
    Palette(
        (240, 236, 244), (214, 206, 224), (104, 92, 148), (66, 56, 104), (160, 148, 196), (238, 156, 120)
    ),
    Palette((248, 240, 220), (234, 216, 172), (222, 166, 54), (164, 112, 28), (242, 204, 118), (70, 96, 72)),
    Palette((232, 238, 246), (198, 212, 230), (66, 104, 158), (38, 66, 110), (128, 164, 208), (240, 196, 96)),
    Palette((240, 244, 230), (212, 222, 190), (112, 142, 72), (72, 96, 44), (166, 190, 124), (196, 84, 72)),
)


class Canvas:
    """Draws in units of a hundredth of the picture's side."""

    def __init__(self, palette: Palette) -> None:
        self.palette = palette
        side = SIZE * _OVERSAMPLING
        self._unit = side / 100
        column = Image.new("RGB", (1, 100))
        column.putdata([_blend(palette.sky, palette.floor, y / 99) for y in range(100)])
        self.image = column.resize((side, side))
        self._draw = ImageDraw.Draw(self.image)
        self.disc(50, 47, 40, _blend(palette.sky, (255, 255, 255), 0.45))
        self.oval(22, 82, 78, 90, _blend(palette.floor, (0, 0, 0), 0.12))

    def _scaled(self, *numbers: float) -> list[float]:
        return [number * self._unit for number in numbers]

    def box(  # noqa: PLR0917  (coordinates)
        self, left: float, top: float, right: float, bottom: float, fill: Colour, radius: float = 0
    ) -> None:
        """A rectangle with round corners."""
        self._draw.rounded_rectangle(self._scaled(left, top, right, bottom), radius * self._unit, fill=fill)

    def oval(self, left: float, top: float, right: float, bottom: float, fill: Colour) -> None:
        """An ellipse."""
        self._draw.ellipse(self._scaled(left, top, right, bottom), fill=fill)

    def half_oval(
        self, left: float, top: float, right: float, bottom: float, fill: Colour, *, upper: bool
    ) -> None:
        """The upper or the lower half of an ellipse."""
        start = 180 if upper else 0
        self._draw.chord(self._scaled(left, top, right, bottom), start, start + 180, fill=fill)

    def disc(self, x: float, y: float, radius: float, fill: Colour) -> None:
        """A circle."""
        self.oval(x - radius, y - radius, x + radius, y + radius, fill)

    def shape(self, fill: Colour, *corners: tuple[float, float]) -> None:
        """A polygon."""
        self._draw.polygon([(x * self._unit, y * self._unit) for x, y in corners], fill=fill)

    def stroke(self, fill: Colour, width: float, *points: tuple[float, float]) -> None:
        """A line with round ends and joints."""
        scaled = [(x * self._unit, y * self._unit) for x, y in points]
        self._draw.line(scaled, fill=fill, width=round(width * self._unit), joint="curve")
        for x, y in (points[0], points[-1]):
            self.disc(x, y, width / 2, fill)

    def ring(
        self,
        box: tuple[float, float, float, float],
        fill: Colour,
        width: float,
        *,
        start: float = 0,
        end: float = 360,
    ) -> None:
        """An arc; angles in degrees, clockwise from three o'clock."""
        self._draw.arc(self._scaled(*box), start, end, fill=fill, width=round(width * self._unit))

    def finished(self) -> Image.Image:
        """The picture at its final size."""
        return self.image.reduce(_OVERSAMPLING)


def draw_all(folder: Path) -> int:
    """Draw what is not there yet into `folder`; the number of pictures drawn."""
    folder.mkdir(parents=True, exist_ok=True)
    drawn = 0
    for index, (motif, draw) in enumerate(MOTIFS.items()):
        for variant in range(VARIANTS):
            file = folder / f"{motif}-{variant + 1}.webp"
            if file.exists():
                continue
            canvas = Canvas(PALETTES[(index + variant * 3) % len(PALETTES)])
            draw(canvas, canvas.palette)
            partial = file.with_suffix(".part")
            canvas.finished().save(partial, "WEBP", quality=86, method=2)
            partial.replace(file)
            drawn += 1
    return drawn


def _blend(one: Colour, other: Colour, share: float) -> Colour:
    red, green, blue = (round(a + (b - a) * share) for a, b in zip(one, other, strict=True))
    return red, green, blue


def _pan(c: Canvas, p: Palette) -> None:
    c.stroke(p.accent, 5, (66, 56), (92, 44))
    c.box(18, 50, 70, 76, p.main, 8)
    c.box(18, 66, 70, 76, p.dark, 5)
    c.oval(16, 43, 72, 58, p.dark)
    c.oval(20, 45, 68, 56, p.light)


def _bowl(c: Canvas, p: Palette) -> None:
    c.half_oval(18, 20, 82, 84, p.main, upper=False)
    c.oval(18, 43, 82, 61, p.dark)
    c.oval(22, 46, 78, 59, p.light)
    c.box(40, 80, 60, 87, p.dark, 2)


def _mug(c: Canvas, p: Palette) -> None:
    c.ring((60, 44, 86, 72), p.main, 5)
    c.box(24, 34, 70, 84, p.main, 7)
    c.box(24, 62, 70, 70, p.accent)
    c.oval(24, 29, 70, 41, p.dark)
    for x in (38, 48, 58):
        c.stroke(p.light, 1.6, (x, 24), (x + 2, 19), (x - 1, 14), (x + 1, 9))


def _chair(c: Canvas, p: Palette) -> None:
    for x, foot in ((32, 28), (68, 72)):
        c.stroke(p.dark, 4, (x, 58), (foot, 86))
    c.box(30, 14, 70, 44, p.main, 7)
    for x in (40, 50, 60):
        c.box(x - 2, 20, x + 2, 44, p.light, 2)
    c.stroke(p.dark, 4, (33, 40), (33, 58))
    c.stroke(p.dark, 4, (67, 40), (67, 58))
    c.box(26, 54, 74, 63, p.accent, 4)


def _table(c: Canvas, p: Palette) -> None:
    for x, foot in ((24, 20), (76, 80)):
        c.stroke(p.dark, 4.5, (x, 50), (foot, 86))
    c.box(12, 44, 88, 53, p.main, 3)
    c.box(12, 50, 88, 53, p.dark, 1.5)
    c.box(44, 30, 54, 44, p.accent, 3)
    c.stroke(p.light, 2, (49, 30), (46, 18))
    c.stroke(p.light, 2, (49, 30), (54, 16))
    c.disc(46, 17, 3.5, p.light)
    c.disc(54, 15, 3.5, p.light)


def _shelf(c: Canvas, p: Palette) -> None:
    c.box(22, 12, 78, 87, p.main, 2)
    for top in (17, 41, 65):
        c.box(26, top, 74, top + 18, p.light, 1)
    for x, height, colour in ((29, 14, p.accent), (35, 16, p.dark), (41, 12, p.main), (60, 10, p.accent)):
        c.box(x, 35 - height, x + 5, 35, colour, 0.5)
    c.disc(58, 53, 6, p.dark)
    c.box(31, 72, 46, 83, p.accent, 1)


def _lamp(c: Canvas, p: Palette) -> None:
    c.stroke(p.dark, 3.5, (50, 50), (50, 82))
    c.oval(34, 79, 66, 88, p.dark)
    c.oval(26, 44, 74, 60, _blend(p.accent, (255, 255, 255), 0.5))
    c.shape(p.main, (38, 16), (62, 16), (76, 52), (24, 52))
    c.shape(p.light, (44, 16), (50, 16), (46, 52), (34, 52))


def _pendant(c: Canvas, p: Palette) -> None:
    c.stroke(p.dark, 1.6, (50, 0), (50, 34))
    c.disc(50, 66, 8, _blend(p.accent, (255, 255, 255), 0.6))
    c.shape(p.main, (42, 32), (58, 32), (80, 64), (20, 64))
    c.oval(20, 58, 80, 70, p.dark)
    c.disc(50, 66, 6, _blend(p.accent, (255, 255, 255), 0.4))


def _cushion(c: Canvas, p: Palette) -> None:
    c.shape(p.dark, (20, 32), (50, 37), (80, 32), (75, 58), (80, 84), (50, 79), (20, 84), (25, 58))
    c.shape(p.main, (23, 34), (50, 39), (77, 34), (72, 58), (77, 82), (50, 77), (23, 82), (28, 58))
    for y in (46, 58, 70):
        c.stroke(p.light, 2, (31, y), (40, y + 3), (50, y), (60, y + 3), (69, y))


def _headphones(c: Canvas, p: Palette) -> None:
    c.ring((22, 16, 78, 84), p.dark, 5, start=180, end=360)
    for x in (16, 68):
        c.box(x, 46, x + 16, 78, p.main, 7)
        c.box(x + (11 if x < 50 else 0), 50, x + (16 if x < 50 else 5), 74, p.accent, 2)


def _speaker(c: Canvas, p: Palette) -> None:
    c.box(30, 12, 70, 87, p.dark, 5)
    c.box(33, 15, 67, 84, p.main, 3)
    for y, radius in ((32, 9), (62, 15)):
        c.disc(50, y, radius, p.dark)
        c.disc(50, y, radius * 0.75, p.light)
        c.disc(50, y, radius * 0.3, p.accent)


def _monitor(c: Canvas, p: Palette) -> None:
    c.box(45, 60, 55, 80, p.dark)
    c.box(34, 78, 66, 83, p.dark, 2)
    c.box(12, 18, 88, 66, p.dark, 4)
    c.box(15, 21, 85, 63, p.light, 2)
    c.shape(p.main, (15, 63), (38, 38), (54, 54), (66, 44), (85, 63))
    c.disc(70, 33, 5, p.accent)


def _camera(c: Canvas, p: Palette) -> None:
    c.box(34, 24, 58, 40, p.dark, 4)
    c.box(14, 34, 86, 80, p.main, 7)
    c.box(14, 46, 86, 66, p.dark)
    c.disc(50, 57, 18, p.light)
    c.disc(50, 57, 14, p.dark)
    c.disc(50, 57, 8, p.accent)
    c.disc(46, 53, 2.5, (255, 255, 255))
    c.box(70, 38, 79, 43, p.accent, 1)


def _tripod(c: Canvas, p: Palette) -> None:
    for foot in (24, 50, 76):
        c.stroke(p.dark, 3.5, (50, 40), (foot, 86))
    c.box(46, 24, 54, 60, p.main, 2)
    c.box(36, 18, 64, 26, p.accent, 2)
    c.stroke(p.dark, 2.5, (50, 32), (70, 40))


def _tent(c: Canvas, p: Palette) -> None:
    c.shape(p.dark, (50, 20), (94, 84), (50, 84))
    c.shape(p.main, (46, 20), (50, 20), (84, 84), (8, 84))
    c.shape(p.accent, (46, 40), (62, 84), (32, 84))
    c.stroke(p.light, 1.4, (46, 20), (46, 84))


def _backpack(c: Canvas, p: Palette) -> None:
    c.ring((38, 8, 62, 30), p.dark, 3.5)
    c.box(20, 50, 30, 78, p.dark, 5)
    c.box(70, 50, 80, 78, p.dark, 5)
    c.box(26, 18, 74, 86, p.main, 14)
    c.box(32, 52, 68, 80, p.light, 6)
    c.box(26, 34, 74, 44, p.dark, 3)
    c.box(45, 32, 55, 48, p.accent, 2)


def _boot(c: Canvas, p: Palette) -> None:
    c.shape(p.main, (34, 16), (60, 16), (60, 50), (84, 62), (86, 80), (32, 80))
    c.box(30, 12, 64, 22, p.light, 4)
    c.box(28, 76, 88, 86, p.dark, 3)
    for y in (30, 39, 48):
        c.stroke(p.accent, 2, (48, y), (61, y + 2))


def _helmet(c: Canvas, p: Palette) -> None:
    c.ring((30, 44, 70, 88), p.dark, 2.5, start=0, end=180)
    c.half_oval(16, 22, 84, 94, p.main, upper=True)
    c.box(14, 54, 86, 62, p.dark, 4)
    for x in (34, 50, 66):
        c.box(x - 3, 30, x + 3, 50, p.light, 3)
    c.ring((34, 50, 66, 86), p.accent, 2.5, start=0, end=180)


def _bag(c: Canvas, p: Palette) -> None:
    c.ring((36, 14, 64, 60), p.dark, 3.5, start=180, end=360)
    c.shape(p.main, (20, 40), (80, 40), (86, 86), (14, 86))
    c.shape(p.light, (20, 40), (80, 40), (81, 50), (19, 50))
    c.box(43, 60, 57, 70, p.accent, 2)


def _jacket(c: Canvas, p: Palette) -> None:
    c.shape(p.dark, (30, 24), (10, 72), (22, 78), (36, 46))
    c.shape(p.dark, (70, 24), (90, 72), (78, 78), (64, 46))
    c.shape(p.main, (30, 22), (42, 16), (58, 16), (70, 22), (70, 86), (30, 86))
    c.shape(p.light, (42, 16), (50, 30), (58, 16))
    c.stroke(p.accent, 1.8, (50, 32), (50, 85))
    c.box(35, 62, 45, 72, p.dark, 1)
    c.box(55, 62, 65, 72, p.dark, 1)


def _trowel(c: Canvas, p: Palette) -> None:
    c.stroke(p.accent, 7, (74, 20), (60, 38))
    c.stroke(p.dark, 3, (60, 38), (52, 48))
    c.shape(p.main, (58, 52), (48, 42), (32, 52), (18, 82), (48, 68))
    c.stroke(p.light, 2, (49, 52), (26, 76))


def _can(c: Canvas, p: Palette) -> None:
    c.ring((36, 20, 66, 58), p.dark, 4, start=180, end=360)
    c.stroke(p.dark, 5, (66, 70), (86, 40))
    c.shape(p.light, (80, 36), (94, 44), (90, 34), (86, 30))
    c.box(28, 42, 70, 86, p.main, 6)
    c.box(28, 56, 70, 62, p.accent)


def _pot(c: Canvas, p: Palette) -> None:
    for x, y in ((32, 26), (68, 26), (50, 14)):
        c.stroke(p.dark, 2.4, (50, 58), (x, y))
        c.oval(x - 9, y - 6, x + 9, y + 12, p.accent)
    c.shape(p.main, (30, 60), (70, 60), (64, 88), (36, 88))
    c.box(26, 54, 74, 63, p.light, 2)


def _blocks(c: Canvas, p: Palette) -> None:
    c.box(18, 60, 44, 86, p.main, 2)
    c.box(48, 60, 80, 86, p.accent, 2)
    c.box(32, 34, 60, 60, p.light, 2)
    c.shape(p.dark, (46, 10), (64, 34), (28, 34))
    c.disc(64, 73, 7, p.sky)


def _pen(c: Canvas, p: Palette) -> None:
    c.stroke(p.main, 8, (80, 18), (42, 62))
    c.stroke(p.accent, 8, (58, 43), (55, 47))
    c.shape(p.dark, (38, 58), (46, 65), (28, 80))
    c.stroke(p.light, 1.6, (78, 16), (46, 54))
    c.stroke(p.dark, 1.6, (28, 82), (40, 86), (52, 82), (64, 86), (76, 82))


def _notebook(c: Canvas, p: Palette) -> None:
    c.box(27, 16, 79, 88, p.dark, 3)
    c.box(24, 13, 76, 85, p.main, 3)
    c.box(24, 13, 34, 85, p.dark, 3)
    c.box(42, 26, 68, 44, p.light, 2)
    c.box(60, 13, 63, 85, p.accent)


def _kettlebell(c: Canvas, p: Palette) -> None:
    c.ring((32, 12, 68, 56), p.dark, 7)
    c.disc(50, 62, 25, p.main)
    c.oval(34, 44, 56, 62, p.light)
    c.disc(50, 64, 11, p.accent)


def _goggles(c: Canvas, p: Palette) -> None:
    c.stroke(p.dark, 4, (6, 44), (22, 52))
    c.stroke(p.dark, 4, (94, 44), (78, 52))
    c.ring((40, 44, 60, 64), p.dark, 4, start=180, end=360)
    for x in (18, 54):
        c.box(x, 40, x + 28, 68, p.main, 12)
        c.box(x + 4, 44, x + 24, 64, p.light, 9)
        c.stroke((255, 255, 255), 2, (x + 9, 56), (x + 16, 48))


MOTIFS: Mapping[str, Callable[[Canvas, Palette], None]] = {
    "pan": _pan,
    "bowl": _bowl,
    "mug": _mug,
    "chair": _chair,
    "table": _table,
    "shelf": _shelf,
    "lamp": _lamp,
    "pendant": _pendant,
    "cushion": _cushion,
    "headphones": _headphones,
    "speaker": _speaker,
    "monitor": _monitor,
    "camera": _camera,
    "tripod": _tripod,
    "tent": _tent,
    "backpack": _backpack,
    "boot": _boot,
    "helmet": _helmet,
    "bag": _bag,
    "jacket": _jacket,
    "trowel": _trowel,
    "can": _can,
    "pot": _pot,
    "blocks": _blocks,
    "pen": _pen,
    "notebook": _notebook,
    "kettlebell": _kettlebell,
    "goggles": _goggles,
}
