"""Invented names: any likeness to a real company is chance."""

COMPANIES = ("Lindqvist Werkzeuge", "Marlow & Finch Supplies", "Tannhof Handel", "Ostwind Trading")
LANDLORDS = ("Kessler Immobilien", "Harbour Lofts")
SOFTWARE = ("Nimbus Hosting", "Codeharbor", "Planwerk Software")
TELEPHONE = ("Telvana", "Fonet")
TRAVEL = ("Railway One", "Taxi Ring", "Nordbahn")
BANKS = ("Stadtbank Linden",)
EQUIPMENT = ("Torvald Electronics", "Officio")
RESTAURANTS = ("Trattoria Lino", "Cafe Anker", "Gasthof Eiche")
MARKETPLACES = ("Markthof Online", "Packwelt")
PROCESSORS = ("Zahlpunkt", "Kartenhof")
LENDERS = ("Ahornkredit",)
INSURERS = ("Quillon Insurance", "Sturmfest")
CUSTOMERS = (
    "Norsund AB",
    "Helvig GmbH",
    "Brightwater Ltd",
    "Atelier Roux",
    "Maravel SA",
    "Jansen Bouw",
    "Petrosyan & Co",
)
SUPPLIERS = ("Steelworks Aalen", "Papyra Druck", "Woodmark", "Lampenfabrik Sol")
FOREIGN = ("Cascade Outdoor Inc", "Pinehill Supply Co")
