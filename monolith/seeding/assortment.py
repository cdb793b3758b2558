"""What the demo shop sells: three levels of categories and, for each leaf, how its products vary."""

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Kind:
    """A leaf category. Prices in euro, weights in kilogram; `motif` names the drawing in `pictures`."""

    root: str
    branch: str
    leaf: str
    nouns: tuple[str, ...]
    materials: tuple[str, ...]
    price: tuple[int, int]
    weight: tuple[float, float]
    motif: str
    use: str


def _kind(  # noqa: PLR0917  (rows of a table)
    place: str, nouns: str, materials: str, numbers: tuple[int, int, float, float], motif: str, use: str
) -> Kind:
    root, branch, leaf = place.split(" > ")
    low, high, light, heavy = numbers
    return Kind(
        root=root,
        branch=branch,
        leaf=leaf,
        nouns=tuple(nouns.split(", ")),
        materials=tuple(materials.split(", ")),
        price=(low, high),
        weight=(light, heavy),
        motif=motif,
        use=use,
    )


_HOME, _TECH, _OUT = "Home & Living", "Electronics", "Outdoor"
_WEAR, _GARDEN, _TOYS, _DESK, _SPORT = "Clothing", "Garden", "Toys & Games", "Stationery", "Sport"

KINDS: tuple[Kind, ...] = (
    _kind(
        f"{_HOME} > Kitchen > Cookware",
        "Frying Pan, Saucepan, Casserole, Sauté Pan",
        "cast iron, stainless steel, copper, aluminium",
        (19, 189, 0.8, 4.5),
        "pan",
        "everyday cooking",
    ),
    _kind(
        f"{_HOME} > Kitchen > Tableware",
        "Plate Set, Bowl Set, Serving Dish",
        "stoneware, porcelain, enamel, olive wood",
        (12, 119, 0.4, 3.0),
        "bowl",
        "the daily table",
    ),
    _kind(
        f"{_HOME} > Kitchen > Coffee & Tea",
        "Coffee Mug, Teapot, French Press, Espresso Cup Set",
        "stoneware, borosilicate glass, porcelain, steel",
        (8, 89, 0.2, 1.4),
        "mug",
        "slow mornings",
    ),
    _kind(
        f"{_HOME} > Furniture > Chairs",
        "Dining Chair, Armchair, Stool, Rocking Chair",
        "oak, ash, beech, walnut",
        (59, 649, 3.5, 18.0),
        "chair",
        "long evenings",
    ),
    _kind(
        f"{_HOME} > Furniture > Tables",
        "Dining Table, Side Table, Writing Desk, Coffee Table",
        "oak, walnut, birch plywood, bamboo",
        (79, 1290, 5.0, 48.0),
        "table",
        "work and supper alike",
    ),
    _kind(
        f"{_HOME} > Furniture > Shelves",
        "Wall Shelf, Bookcase, Ladder Shelf",
        "oak, pine, powder-coated steel, birch plywood",
        (29, 549, 2.0, 35.0),
        "shelf",
        "books and plants",
    ),
    _kind(
        f"{_HOME} > Lighting > Table Lamps",
        "Table Lamp, Desk Lamp, Bedside Lamp",
        "brass, opal glass, linen, oak",
        (29, 299, 0.7, 4.0),
        "lamp",
        "reading corners",
    ),
    _kind(
        f"{_HOME} > Lighting > Pendant Lights",
        "Pendant Light, Chandelier, Ceiling Light",
        "brass, rattan, smoked glass, paper",
        (39, 499, 0.9, 6.0),
        "pendant",
        "the middle of the room",
    ),
    _kind(
        f"{_HOME} > Textiles > Blankets",
        "Throw Blanket, Bedspread, Picnic Blanket",
        "merino wool, organic cotton, linen, alpaca",
        (25, 249, 0.6, 2.8),
        "cushion",
        "cold feet",
    ),
    _kind(
        f"{_HOME} > Textiles > Cushions",
        "Cushion, Floor Cushion, Bolster",
        "linen, velvet, organic cotton, wool felt",
        (15, 99, 0.4, 2.2),
        "cushion",
        "sofas and window seats",
    ),
    _kind(
        f"{_TECH} > Audio > Headphones",
        "Over-Ear Headphones, In-Ear Headphones, Studio Headphones",
        "aluminium, recycled plastic, leather",
        (29, 449, 0.02, 0.38),
        "headphones",
        "trains and open offices",
    ),
    _kind(
        f"{_TECH} > Audio > Speakers",
        "Bookshelf Speaker, Portable Speaker, Soundbar",
        "walnut veneer, aluminium, recycled fabric",
        (39, 799, 0.5, 9.0),
        "speaker",
        "kitchens and living rooms",
    ),
    _kind(
        f"{_TECH} > Computers > Keyboards",
        "Mechanical Keyboard, Compact Keyboard, Number Pad",
        "aluminium, PBT plastic, bamboo",
        (35, 249, 0.3, 1.6),
        "monitor",
        "people who type all day",
    ),
    _kind(
        f"{_TECH} > Computers > Monitors",
        "Monitor, Curved Monitor, Portable Display",
        "aluminium, recycled plastic",
        (129, 999, 0.8, 8.5),
        "monitor",
        "code and colour",
    ),
    _kind(
        f"{_TECH} > Photo > Cameras",
        "Mirrorless Camera, Instant Camera, Film Camera",
        "magnesium, leatherette, aluminium",
        (79, 1890, 0.25, 1.2),
        "camera",
        "travel and family",
    ),
    _kind(
        f"{_TECH} > Photo > Tripods",
        "Travel Tripod, Table Tripod, Monopod",
        "carbon fibre, aluminium",
        (19, 399, 0.2, 2.4),
        "tripod",
        "low light and long exposure",
    ),
    _kind(
        f"{_OUT} > Camping > Tents",
        "Two-Person Tent, Family Tent, Tarp Shelter",
        "ripstop nylon, polycotton, recycled polyester",
        (79, 899, 0.9, 14.0),
        "tent",
        "wind and weather",
    ),
    _kind(
        f"{_OUT} > Camping > Sleeping Bags",
        "Down Sleeping Bag, Summer Sleeping Bag, Sleeping Quilt",
        "down, recycled polyester, merino wool",
        (49, 499, 0.5, 2.4),
        "cushion",
        "nights below ten degrees",
    ),
    _kind(
        f"{_OUT} > Camping > Stoves",
        "Gas Stove, Wood Stove, Camp Kettle",
        "titanium, stainless steel, aluminium",
        (19, 179, 0.1, 1.9),
        "can",
        "tea above the tree line",
    ),
    _kind(
        f"{_OUT} > Hiking > Backpacks",
        "Day Pack, Trekking Backpack, Roll-Top Backpack",
        "waxed canvas, ripstop nylon, recycled polyester",
        (39, 329, 0.4, 2.6),
        "backpack",
        "day trips and long trails",
    ),
    _kind(
        f"{_OUT} > Hiking > Boots",
        "Hiking Boots, Trail Shoes, Winter Boots",
        "nubuck leather, suede, recycled mesh",
        (69, 299, 0.5, 1.8),
        "boot",
        "mud, rock and snow",
    ),
    _kind(
        f"{_OUT} > Cycling > Helmets",
        "City Helmet, Gravel Helmet, Child Helmet",
        "polycarbonate, recycled foam",
        (29, 229, 0.2, 0.5),
        "helmet",
        "the way to work",
    ),
    _kind(
        f"{_OUT} > Cycling > Bike Bags",
        "Pannier, Handlebar Bag, Saddle Bag",
        "waxed canvas, TPU, recycled nylon",
        (19, 169, 0.1, 1.3),
        "bag",
        "groceries and tools",
    ),
    _kind(
        f"{_WEAR} > Jackets > Rain Jackets",
        "Rain Jacket, Parka, Poncho",
        "recycled nylon, waxed cotton, wool loden",
        (49, 389, 0.2, 1.5),
        "jacket",
        "drizzle and downpour",
    ),
    _kind(
        f"{_WEAR} > Jackets > Knitwear",
        "Cardigan, Crew-Neck Jumper, Roll-Neck Jumper",
        "merino wool, lambswool, organic cotton, alpaca",
        (39, 229, 0.2, 0.9),
        "jacket",
        "layers",
    ),
    _kind(
        f"{_WEAR} > Accessories > Bags",
        "Tote Bag, Messenger Bag, Weekender",
        "canvas, vegetable-tanned leather, recycled nylon",
        (15, 349, 0.2, 1.9),
        "bag",
        "market and office",
    ),
    _kind(
        f"{_WEAR} > Accessories > Hats",
        "Beanie, Sun Hat, Flat Cap",
        "merino wool, straw, linen, tweed",
        (12, 89, 0.05, 0.3),
        "helmet",
        "sun and frost",
    ),
    _kind(
        f"{_GARDEN} > Tools > Hand Tools",
        "Hand Trowel, Pruning Shears, Hori Knife",
        "carbon steel, ash, stainless steel",
        (9, 99, 0.1, 0.9),
        "trowel",
        "beds and borders",
    ),
    _kind(
        f"{_GARDEN} > Tools > Watering",
        "Watering Can, Plant Mister, Rain Gauge",
        "galvanised steel, copper, recycled plastic",
        (9, 119, 0.1, 2.4),
        "can",
        "balconies and greenhouses",
    ),
    _kind(
        f"{_GARDEN} > Plants > Pots",
        "Plant Pot, Hanging Planter, Raised Bed",
        "terracotta, stoneware, larch, fibre clay",
        (7, 189, 0.3, 16.0),
        "pot",
        "indoor and outdoor plants",
    ),
    _kind(
        f"{_GARDEN} > Plants > Seeds",
        "Herb Seed Set, Wildflower Mix, Vegetable Seed Box",
        "paper, tin, recycled card",
        (4, 39, 0.02, 0.4),
        "pot",
        "the first warm week",
    ),
    _kind(
        f"{_TOYS} > Building > Wooden Blocks",
        "Building Blocks, Marble Run, Stacking Tower",
        "beech, maple, lime wood",
        (14, 129, 0.3, 3.2),
        "blocks",
        "small hands and big plans",
    ),
    _kind(
        f"{_TOYS} > Building > Puzzles",
        "Jigsaw Puzzle, Wooden Puzzle, Brain Teaser",
        "recycled card, birch plywood, cork",
        (9, 69, 0.2, 1.4),
        "blocks",
        "rainy Sundays",
    ),
    _kind(
        f"{_TOYS} > Games > Board Games",
        "Board Game, Travel Chess Set, Dice Game",
        "recycled card, beech, linen",
        (9, 79, 0.2, 2.2),
        "blocks",
        "two to six players",
    ),
    _kind(
        f"{_DESK} > Writing > Fountain Pens",
        "Fountain Pen, Rollerball, Calligraphy Set",
        "brass, resin, aluminium, ebonite",
        (9, 279, 0.01, 0.2),
        "pen",
        "letters and lists",
    ),
    _kind(
        f"{_DESK} > Writing > Notebooks",
        "Notebook, Sketchbook, Weekly Planner",
        "recycled paper, stone paper, cotton paper",
        (5, 49, 0.1, 0.8),
        "notebook",
        "plans and drawings",
    ),
    _kind(
        f"{_DESK} > Desk > Organisers",
        "Desk Organiser, Letter Tray, Pencil Cup",
        "oak, cork, steel, wool felt",
        (9, 119, 0.1, 2.1),
        "notebook",
        "tidy desks",
    ),
    _kind(
        f"{_SPORT} > Fitness > Yoga",
        "Yoga Mat, Yoga Block Set, Meditation Cushion",
        "natural rubber, cork, organic cotton",
        (12, 129, 0.3, 2.9),
        "cushion",
        "a quiet half hour",
    ),
    _kind(
        f"{_SPORT} > Fitness > Weights",
        "Kettlebell, Dumbbell Pair, Sandbag",
        "cast iron, rubber, steel",
        (19, 249, 2.0, 32.0),
        "kettlebell",
        "strength at home",
    ),
    _kind(
        f"{_SPORT} > Water > Swimming",
        "Swim Goggles, Swim Cap, Dry Bag",
        "silicone, polycarbonate, TPU",
        (7, 79, 0.05, 0.6),
        "goggles",
        "lake and pool",
    ),
)
