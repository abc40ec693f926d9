"""Closed lists: all that the demo model knows about the world, and the words it sees."""

from __future__ import annotations

CAPITALS = {
    "Argentina": "Buenos Aires",
    "Australia": "Canberra",
    "Austria": "Vienna",
    "Belgium": "Brussels",
    "Brazil": "Brasilia",
    "Bulgaria": "Sofia",
    "Canada": "Ottawa",
    "Chile": "Santiago",
    "China": "Beijing",
    "Colombia": "Bogota",
    "Cuba": "Havana",
    "Denmark": "Copenhagen",
    "Ecuador": "Quito",
    "Egypt": "Cairo",
    "Finland": "Helsinki",
    "France": "Paris",
    "Germany": "Berlin",
    "Ghana": "Accra",
    "Greece": "Athens",
    "Hungary": "Budapest",
    "Iceland": "Reykjavik",
    "India": "New Delhi",
    "Indonesia": "Jakarta",
    "Iran": "Tehran",
    "Ireland": "Dublin",
    "Italy": "Rome",
    "Japan": "Tokyo",
    "Kenya": "Nairobi",
    "Mexico": "Mexico City",
    "Mongolia": "Ulaanbaatar",
    "Morocco": "Rabat",
    "Nepal": "Kathmandu",
    "Norway": "Oslo",
    "Peru": "Lima",
    "Poland": "Warsaw",
    "Portugal": "Lisbon",
    "Romania": "Bucharest",
    "Russia": "Moscow",
    "Senegal": "Dakar",
    "Spain": "Madrid",
    "Sweden": "Stockholm",
    "Switzerland": "Bern",
    "Thailand": "Bangkok",
    "Turkey": "Ankara",
    "Ukraine": "Kyiv",
    "Uruguay": "Montevideo",
    "Vietnam": "Hanoi",
    "Zambia": "Lusaka",
}

# Countries whose capitals it does not know, and should say so.
OTHER_COUNTRIES = (
    "Albania Algeria Angola Armenia Bahrain Bangladesh Bolivia Botswana Cambodia Cameroon Chad "
    "Croatia Cyprus Estonia Ethiopia Fiji Gabon Georgia Guatemala Haiti Honduras Iraq Israel "
    "Jamaica Jordan Kazakhstan Kuwait Laos Latvia Lebanon Libya Lithuania Madagascar Malawi "
    "Malaysia Mali Malta Namibia Nicaragua Nigeria Oman Pakistan Panama Paraguay Qatar Rwanda "
    "Serbia Singapore Slovakia Slovenia Somalia Sudan Syria Tanzania Tunisia Uganda Venezuela Yemen"
).split()

COLOURS_OF_THINGS = {
    "grass": "green",
    "snow": "white",
    "coal": "black",
    "blood": "red",
    "a lemon": "yellow",
    "an orange": "orange",
    "the sky": "blue",
    "a banana": "yellow",
    "milk": "white",
    "chocolate": "brown",
    "a tomato": "red",
    "the sea": "blue",
    "a leaf": "green",
    "a flamingo": "pink",
    "a carrot": "orange",
    "an elephant": "grey",
    "a raven": "black",
    "a frog": "green",
    "a plum": "purple",
    "a strawberry": "red",
    "lavender": "purple",
    "a mouse": "grey",
    "salt": "white",
    "a sunflower": "yellow",
}

NAMES = (
    "Ada Alan Alice Amir Anna Boris Carla Chen Clara Daniel Diego Dora Elena Emil Emma Erik Eva "
    "Felix Fiona Frank Grace Hanna Hugo Ida Igor Ines Ivan Jack Jana Jonas Julia Kai Karim Kate "
    "Laura Leo Lina Lucas Lucy Marco Maria Max Mei Mia Milan Nadia Nico Nina Noah Nora Olga Omar "
    "Oscar Paul Petra Pia Rosa Ruth Sam Sara Simon Sofia Theo Tina Tom Vera Victor Yara Zoe"
).split()

NOUNS = (
    "anchor apple arrow basket bell bicycle blanket boat book bottle bridge broom bucket button "
    "cabin cable camel camera candle cannon carpet castle chain chair clock cloud coat coin "
    "compass cradle crown cup curtain desk door dragon drum eagle engine envelope feather fence "
    "flag flute forest fountain garden gate glove goat guitar hammer harbor hat helmet hill horn "
    "horse house island jacket jar kettle key kite knife ladder lake lamp lantern letter library "
    "lion map market mask medal melon mill mirror moon mountain nail needle nest oven owl paddle "
    "painting paper parrot pencil piano pillow pipe plate pocket pump rabbit radio ribbon ring "
    "river road rocket roof rope saddle sail school scissors shed shell ship shirt shoe shovel "
    "spoon stable stairs statue stone stove street sword table tent ticket tiger tower train "
    "tree trumpet tunnel umbrella valley violin wagon wall watch well wheel whistle window wolf"
).split()

ADJECTIVES = (
    "old new big small heavy light dark bright quiet loud slow fast warm cold dry wet clean dusty "
    "round flat long short wide narrow soft hard strange famous broken empty full simple rare"
).split()

VERBS = (
    "carried found watched painted moved opened closed cleaned repaired sold bought lost kept "
    "washed covered lifted pulled pushed counted followed built left saw heard liked feared"
).split()

PLACES = (
    "at the harbor, near the mill, behind the wall, in the garden, on the hill, under the bridge, "
    "beside the road, by the lake, in the market, inside the cabin, across the valley, "
    "at the station, in the kitchen, on the roof, along the river, outside the gate"
).split(", ")

TIMES = (
    "in the morning, at noon, in the evening, at night, on Monday, on Friday, last winter, "
    "last summer, after the storm, before the feast, every day, once a year, long ago, that week"
).split(", ")

NUMBER_WORDS = "no one two three four five six seven eight nine".split()
