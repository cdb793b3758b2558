"""Plain word lists. Brands and shoppers are made from them; none of them exists."""


def _words(text: str) -> tuple[str, ...]:
    return tuple(text.split())


SERIES = _words(
    """
    Alder Amber Anchor Arbor Aster Aurora Basalt Beacon Birch Bramble Breeze Brook Calm Cedar Chalk Cinder
    Cirrus Clover Coast Cobalt Comet Coral Cove Crest Delta Dune Dusk Echo Elm Ember Fable Fern Field Fjord
    Flint Flora Forge Garnet Glade Grove Harbour Hazel Heath Heron Hollow Indigo Iris Island Ivory Juniper
    Kestrel Lagoon Larch Lark Laurel Linden Loom Lumen Maple Marsh Meadow Mesa Mist Moor Moss Nova North
    Oasis Ocean Onyx Opal Orbit Orchard Osprey Otter Pebble Pine Plume Polar Prairie Quarry Quill Rain Raven
    Reed Ridge River Robin Rowan Rue Saffron Sage Sand Shale Shore Sierra Slate Sol Spruce Stone Summit
    Swift Tarn Teal Terra Thistle Tide Timber Tundra Umber Vale Violet Wander Willow Wren Zephyr
    """
)

BRANDS = _words(
    """
    Alderwick Birchmoor Brindleby Copperfen Duskbridge Elmfold Fernhollow Finchley&Moor Glenmarrow
    Hazelthorpe Inkwellen Juniperoak Kestrelby Larkwend Lindenhusk Marrowmill Mossgate Nettlewood Oakumber
    Orrinshaw Pebbleworth Quillanby Ravenmere Rookhollow Saltmarrow Silverlarch Slatefold Tarnwick
    Thistledown Umberlea Vellumbrook Wendlewood Willowmark Wrenfold Yarrowby Zephyrine Ståhlbrück Crêtebois
    """
)

ADJECTIVES = _words(
    """
    Classic Compact Folding Hand-Made Heavy Light Little Modern Modular Nordic Original Plain Quiet Round
    Rustic Simple Slim Soft Solid Sturdy Tall Travel Warm Wide
    """
)

COLOURS = _words(
    """
    black white natural grey charcoal sand rust ochre sage moss teal navy sky plum rose crème
    """
)

OPENINGS = (
    "A {adjective} {noun} made of {material}, for {use}.",
    "This {noun} is made of {material} and meant for {use}.",
    "{Material}, a clear shape and nothing more: a {noun} for {use}.",
    "Our {adjective} {noun} has been part of the {series} family for years.",
)
MIDDLES = (
    "Every edge is finished by hand.",
    "The colour, {colour}, deepens with use.",
    "It arrives in a box made of recycled card \N{EN DASH} no plastic.",
    "Spare parts stay available for ten years.",
    "Tested between \N{MINUS SIGN}20 °C and +45 °C.",
    "Small differences between two pieces are a sign of the material, not a fault.",
    "It pairs well with everything else in the {series} series.",
    "Measured by us: {width} \N{MULTIPLICATION SIGN} {height} cm.",
)
CLOSINGS = (
    "Wipe with a damp cloth.",
    "Care instructions are enclosed.",
    "Designed to be repaired, not replaced.",
    "Made in small batches by {brand}.",
    "With the maker's five-year guarantee.",
    "Two-person assembly takes about “half a cup of tea”.",
)
FEATURES = (
    "repairable",
    "made to order",
    "vegan",
    "FSC certified",
    "dishwasher safe",
    "water-repellent",
    "limited edition",
    "plastic-free packaging",
    "hand-finished",
    "recycled content",
)

FIRST_NAMES = _words(
    """
    Amber Ash Aster Basil Beryl Blaise Briar Brook Cedar Clover Coral Dale Dawn Ember Fern Flint Flora
    Forest Glen Hazel Heath Holly Iris Ivy Jasper Jun Juniper Lark Laurel Linden Lotus Maple Marigold May
    Olive Opal Pearl Poppy Reed River Robin Rowan Ruby Sage Sky Sol Star Summer Sunny Violet Willow Winter
    Wren Zoë
    """
)
SURNAMES = _words(
    """
    Acre Bank Barrow Beck Bluff Bourne Bridge Brink Cliff Combe Croft Dell Down Fell Fen Ferry Field Ford
    Gate Glade Green Grove Hedge Hill Hollow Holm Isle Knoll Lake Lane Lea Marsh Mead Mere Mill Moor Orchard
    Pasture Path Pond Quay Ridge Rill Sands Shaw Shore Spring Stone Thicket Thorn Vale Water Weir Wold Wood
    Yard
    """
)
STREETS = (
    "Alder Row",
    "Bakery Lane",
    "Canal Street",
    "Dyke Road",
    "East Gate",
    "Garden Walk",
    "Harbour Street",
    "Lime Avenue",
    "Mill Hill",
    "North Quay",
    "Orchard Way",
    "Schloßgasse",
    "Station Road",
    "Tanner's Yard",
)
CITIES = (
    ("10115", "Berlin"),
    ("20095", "Hamburg"),
    ("50667", "Köln"),
    ("80331", "München"),
    ("04109", "Leipzig"),
    ("01067", "Dresden"),
    ("28195", "Bremen"),
    ("90402", "Nürnberg"),
    ("99084", "Erfurt"),
    ("24103", "Kiel"),
)

REVIEWS: dict[int, tuple[tuple[str, ...], tuple[str, ...]]] = {
    1: (
        ("Broke after a week", "Not what I ordered", "Disappointed", "Sent it back"),
        (
            "It came with a crack and the replacement had one too.",
            "The picture promises more than the box holds.",
            "Wobbles, whatever I do.",
            "Smelled so strongly of glue that it lives on the balcony now.",
        ),
    ),
    2: (
        ("Expected more", "Looks better than it is", "Meh", "Too small"),
        (
            "Nice idea, careless finish.",
            "It works, but the price is hard to understand.",
            "Measure before you buy; it is smaller than it looks.",
        ),
    ),
    3: (
        ("It is fine", "Does what it should", "Mixed feelings", "Okay for the price"),
        (
            "Neither good nor bad. I would look around first next time.",
            "Good material, odd colour.",
            "Delivery took two weeks, the thing itself is all right.",
        ),
    ),
    4: (
        ("Very good", "Solid", "Almost perfect", "Would buy again", "Happy with it"),
        (
            "Well made and quick to arrive. One star off for the packaging.",
            "In daily use for three months: no complaints.",
            "Exactly as described. The instructions could be clearer.",
            "My second one, the first went to my sister.",
        ),
    ),
    5: (
        ("Love it", "Beautiful", "Worth every cent", "Just right", "Superb 👍", "The best I have had"),
        (
            "It is even prettier than in the pictures.",
            "Heavy, quiet, simple. This will outlive me.",
            "Bought as a present and kept it. Bought another as a present.",
            "Finally somebody who thinks about the details.",
            "Ten out of ten \N{EN DASH} the whole family fights over it.",
        ),
    ),
}
