"""The starter level's words: accounts, countries, counterparties and wordings, and which of them training may see.

Names are invented. No word of a held-out name or wording occurs in one that training sees (a test holds that), so that
"both" asks for what the model knows about words, not for what it has seen.
"""

from __future__ import annotations

from typing import Literal, NamedTuple, TypeAlias

Split: TypeAlias = Literal["train", "counterparty", "both"]
SPLITS: tuple[Split, ...] = ("train", "counterparty", "both")
"""Which set counterparties and wordings come from: both from the training set; unseen counterparties with known
wordings; both unseen."""

SIDES = ("paid", "received")
CODES = ("home", "foreign")
HOME = "GB"
FOREIGN = ("DE", "FR", "ES", "IT", "NL", "US", "JP", "CA")


class Account(NamedTuple):
    """One account. `example` is a counterparty of the worked examples only."""

    name: str
    example: str
    counterparties: tuple[str, ...]
    unseen_counterparties: tuple[str, ...]
    wordings: tuple[str, ...]
    unseen_wordings: tuple[str, ...]


_TABLE = (
    Account(
        "travel",
        "Tramway One",
        ("Northline Rail", "Cabway Taxis", "Skylark Air", "Channel Ferries", "Bluecoach", "Hotel Arber"),
        ("Nordbahn", "Jetwing", "Pension Alba", "Rideo Cars"),
        ("train ticket", "taxi ride", "hotel night", "flight booking", "ferry crossing", "coach seat"),
        ("airport transfer", "boarding pass", "lodging in Porto", "mileage of a trip"),
    ),
    Account(
        "rent",
        "Marlow Homes",
        ("Kessler Estates", "Quay Lofts", "Stonegate Property", "Oakfield Lettings", "Mill Yard", "Cornerhouse"),
        ("Linden Immobilien", "Tower Rooms", "Parkview Landlords", "Depot Spaces"),
        ("monthly rent", "warehouse lease", "storage unit", "parking space", "workshop hire", "ground rent"),
        ("tenancy payment", "dues for the building", "sublet hall", "premises in June"),
    ),
    Account(
        "software",
        "Scriptory",
        ("Nimbus Cloud", "Codeharbor", "Planwerk Apps", "Bitfoundry", "Pixelmint", "Datanest"),
        ("Stackwise", "Loopsoft", "Appgarden", "Cryptbyte"),
        ("software licence", "cloud hosting", "app subscription", "antivirus renewal", "database plan", "user seats"),
        ("web server", "programming tools", "SaaS upgrade", "code repository"),
    ),
    Account(
        "phone",
        "Hellofone",
        ("Telvana", "Fonet", "Mobilink", "Ringwell Telecom", "Voxline", "Cellbridge"),
        ("Callisto", "Dialtone", "Wavetel", "Speakeasy"),
        ("phone bill", "mobile contract", "SIM card", "call minutes", "broadband line", "roaming fee"),
        ("handset", "landline charges", "text bundle", "switchboard number"),
    ),
    Account(
        "energy",
        "Amperia",
        ("Voltwerk", "Gasco North", "Sunfield Power", "Watt & Sons", "Heatline", "Riverside Electric"),
        ("Thermaris", "Brightgrid", "Kilowatt Union", "Coalbrook Fuels"),
        ("electricity bill", "gas supply", "power usage", "heating oil", "meter reading", "solar tariff"),
        ("kilowatt hours", "district warmth", "boiler pellets", "grid levy"),
    ),
    Account(
        "food",
        "Crumb Brothers",
        ("Trattoria Lino", "Cafe Anker", "Gasthof Eiche", "Bakery Morgenrot", "Green Deli", "Sushi Kan"),
        ("Bistro Pavot", "Pizzeria Onda", "Butcher Holm", "Noodle Palace"),
        ("team lunch", "coffee and cake", "dinner with guests", "catering", "sandwiches", "fruit basket"),
        ("breakfast buffet", "snack delivery", "soup, salad", "drinks at a meeting"),
    ),
    Account(
        "office",
        "Binderei",
        ("Papyra", "Officio", "Inkwell Supplies", "Deskworld", "Clipshop", "Tonerhaus"),
        ("Stationer Brandt", "Papermill Direct", "Quill Traders", "Foldery"),
        ("printer paper", "toner cartridge", "desk chair", "pens and folders", "envelopes", "filing cabinet"),
        ("notebooks", "stapler", "whiteboard markers", "label rolls"),
    ),
    Account(
        "legal",
        "Justus Chambers",
        ("Notary Adler", "Finch Law", "Berger Advocates", "Counsel House", "Patent Bureau Sol", "Themis Partners"),
        ("Solicitors Grey", "Lex Roux", "Attorney Vance", "Barrister Kemp"),
        ("contract review", "notary fee", "legal advice", "court costs", "trademark filing", "patent search"),
        ("lawyer retainer", "litigation", "signed deed", "dispute settlement"),
    ),
)
ACCOUNTS: dict[str, Account] = {account.name: account for account in _TABLE}
