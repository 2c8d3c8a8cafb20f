"""Named lists of landmarks, each a category of Wikimedia Commons.

The names were not checked on the site. Redirects are followed; a name that Commons does not know
gives no pictures.
"""

PRESETS = {
    "oxford": (  # the eleven landmarks of Oxford5k
        "All Souls College, Oxford",
        "Ashmolean Museum",
        "Balliol College, Oxford",
        "Bodleian Library",
        "Christ Church, Oxford",
        "Cornmarket Street, Oxford",
        "Hertford College, Oxford",
        "Keble College, Oxford",
        "Magdalen College, Oxford",
        "Oxford University Museum of Natural History",  # in front of the Pitt Rivers Museum
        "Radcliffe Camera",
    ),
    "paris": (  # the eleven landmarks of Paris6k
        "La Défense",
        "Eiffel Tower",
        "Hôtel des Invalides",
        "Palais du Louvre",
        "Moulin Rouge",
        "Musée d'Orsay",
        "Cathédrale Notre-Dame de Paris",
        "Panthéon de Paris",
        "Centre Georges-Pompidou",
        "Basilique du Sacré-Cœur de Montmartre",
        "Arc de Triomphe de l'Étoile",
    ),
    "world": (
        "Angkor Wat",
        "Atomium",
        "Brandenburg Gate",
        "Burj Khalifa",
        "CN Tower",
        "Colosseum",
        "Edinburgh Castle",
        "Eiffel Tower",
        "Empire State Building",
        "Golden Gate Bridge",
        "Hagia Sophia",
        "Machu Picchu",
        "Parthenon",
        "Petronas Towers",
        "Space Needle",
        "Statue of Liberty",
        "Stonehenge",
        "Sydney Opera House",
        "Taj Mahal",
        "Tower Bridge",
    ),
}
