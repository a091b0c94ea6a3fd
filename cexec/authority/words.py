"""The words of short codes: 256, so that each is one random byte; short, and unlike each other when read aloud."""

from __future__ import annotations

_TEXT = (
    "acid acorn acrobat actor album alley amber anchor angle ankle apple apron arena armor arrow atlas attic "
    "award axle bacon badge baker bamboo banjo barn basin basket beach bead beard beaver bench berry bicycle "
    "birch blanket blossom bonfire book border bottle bowl brick bridge broom bucket buffalo butter button cabin "
    "cactus camel camera candle canoe canvas canyon carbon cargo carpet carrot castle cedar cellar cereal chain "
    "chalk cherry chess chimney cider cinema circus clay cliff clock cloud clover coat cobalt coconut comet "
    "compass copper coral cotton cousin coyote crab cradle crane crater cricket crown crystal curtain dancer "
    "desert diamond dinner dolphin donkey dragon drawer drum eagle echo elbow elephant ember engine falcon farmer "
    "feather fence ferry fiddle field finger flag flute forest fossil fountain fox garden garlic gate ginger "
    "giraffe glacier glove goat granite grape guitar hammer harbor harvest hazel helmet heron hockey honey "
    "horizon hotel iceberg igloo island ivory jacket jaguar jewel jungle kayak kettle kitchen kite ladder lagoon "
    "lantern lemon leopard letter library lily lobster magnet mango maple marble market meadow melon mirror "
    "monkey morning mosaic motor mountain museum mustard napkin nectar needle nickel night nutmeg oasis ocean "
    "olive onion orange orchard otter oven oyster paddle palace panda paper parrot pasta pebble pencil pepper "
    "piano picnic pillow pilot planet plum pocket pony potato prairie puzzle quartz rabbit radar radio raven "
    "ribbon river robin rocket saddle salmon sandal saturn scarf school shadow silver spider sugar sunset table "
    "temple tiger tomato tower tractor trumpet tulip tunnel turtle valley velvet violin walnut whale willow "
    "window winter zebra "
)
WORDS = tuple(_TEXT.split())
