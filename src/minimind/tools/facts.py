"""A few dozen facts that a model may look up offline, in English and Chinese: countries, elements, planets, constants.

Small on purpose: enough to train and to test the use of a lookup tool, where the answer can be checked.
"""

import re
from collections.abc import Iterator

__all__ = ["FACTS", "look_up"]

MAX_TOPIC = 200
# A question may name two things to compare; more would only be a way to print the table.
MAX_FOUND = 3

# Country (Chinese): capital (Chinese), continent.
_COUNTRIES = """
Argentina (阿根廷): Buenos Aires (布宜诺斯艾利斯), South America
Australia (澳大利亚): Canberra (堪培拉), Oceania
Austria (奥地利): Vienna (维也纳), Europe
Brazil (巴西): Brasília (巴西利亚), South America
Canada (加拿大): Ottawa (渥太华), North America
Chile (智利): Santiago (圣地亚哥), South America
China (中国): Beijing (北京), Asia
Cuba (古巴): Havana (哈瓦那), North America
Denmark (丹麦): Copenhagen (哥本哈根), Europe
Egypt (埃及): Cairo (开罗), Africa
Ethiopia (埃塞俄比亚): Addis Ababa (亚的斯亚贝巴), Africa
Finland (芬兰): Helsinki (赫尔辛基), Europe
France (法国): Paris (巴黎), Europe
Germany (德国): Berlin (柏林), Europe
Greece (希腊): Athens (雅典), Europe
Hungary (匈牙利): Budapest (布达佩斯), Europe
Iran (伊朗): Tehran (德黑兰), Asia
Ireland (爱尔兰): Dublin (都柏林), Europe
Italy (意大利): Rome (罗马), Europe
Japan (日本): Tokyo (东京), Asia
Kenya (肯尼亚): Nairobi (内罗毕), Africa
Mexico (墨西哥): Mexico City (墨西哥城), North America
Morocco (摩洛哥): Rabat (拉巴特), Africa
New Zealand (新西兰): Wellington (惠灵顿), Oceania
Nigeria (尼日利亚): Abuja (阿布贾), Africa
Norway (挪威): Oslo (奥斯陆), Europe
Peru (秘鲁): Lima (利马), South America
Poland (波兰): Warsaw (华沙), Europe
Portugal (葡萄牙): Lisbon (里斯本), Europe
Russia (俄罗斯): Moscow (莫斯科), Europe and Asia
South Korea (韩国): Seoul (首尔), Asia
Spain (西班牙): Madrid (马德里), Europe
Sweden (瑞典): Stockholm (斯德哥尔摩), Europe
Thailand (泰国): Bangkok (曼谷), Asia
Turkey (土耳其): Ankara (安卡拉), Asia and Europe
the Netherlands (荷兰): Amsterdam (阿姆斯特丹), Europe
the United Kingdom (英国): London (伦敦), Europe
the United States (美国): Washington, D.C. (华盛顿), North America
Vietnam (越南): Hanoi (河内), Asia
"""

# Element (Chinese): symbol, atomic number.
_ELEMENTS = """
hydrogen (氢): H, 1
helium (氦): He, 2
lithium (锂): Li, 3
carbon (碳): C, 6
nitrogen (氮): N, 7
oxygen (氧): O, 8
fluorine (氟): F, 9
neon (氖): Ne, 10
sodium (钠): Na, 11
magnesium (镁): Mg, 12
aluminium (铝): Al, 13
silicon (硅): Si, 14
phosphorus (磷): P, 15
sulfur (硫): S, 16
chlorine (氯): Cl, 17
potassium (钾): K, 19
calcium (钙): Ca, 20
iron (铁): Fe, 26
copper (铜): Cu, 29
zinc (锌): Zn, 30
silver (银): Ag, 47
tin (锡): Sn, 50
iodine (碘): I, 53
gold (金): Au, 79
lead (铅): Pb, 82
uranium (铀): U, 92
"""

# In order from the Sun.
_PLANETS = (
    "Mercury (水星) Venus (金星) Earth (地球) Mars (火星) Jupiter (木星) Saturn (土星) Uranus (天王星) Neptune (海王星)"
)

# The first five are exact by the definition of the SI units of 2019.
_CONSTANTS = """
speed of light (光速): 299792458 m/s
Planck constant (普朗克常数): 6.62607015e-34 J s
elementary charge (元电荷): 1.602176634e-19 C
Boltzmann constant (玻尔兹曼常数): 1.380649e-23 J/K
Avogadro constant (阿伏伽德罗常数): 6.02214076e23 per mol
standard gravity (标准重力): 9.80665 m/s²
standard atmosphere (标准大气压): 101325 Pa
absolute zero (绝对零度): -273.15 °C
pi (圆周率): 3.14159265358979
Euler's number (自然常数): 2.71828182845905
golden ratio (黄金比例): 1.61803398874989
"""


def _facts() -> Iterator[tuple[str, str]]:
    """Pairs of a name and what is known, each fact once by its English and once by its Chinese name."""
    for line in _COUNTRIES.strip().split("\n"):
        name, chinese, capital, continent = _taken_apart(r"(.+) \((.+?)\): (.+\)), (.+)", line)
        yield from _named(name, chinese, f"{name} ({chinese}): capital {capital}, continent {continent}")
    for line in _ELEMENTS.strip().split("\n"):
        name, chinese, symbol, atomic_number = _taken_apart(r"(.+) \((.+?)\): (.+), (.+)", line)
        yield from _named(name, chinese, f"{name} ({chinese}): element {symbol}, atomic number {atomic_number}")
    for place, (name, chinese) in enumerate(re.findall(r"(\w+) \((\w+)\)", _PLANETS), start=1):
        yield from _named(name, chinese, f"{name} ({chinese}): planet {place} from the Sun")
    for line in _CONSTANTS.strip().split("\n"):
        name, chinese, value = _taken_apart(r"(.+) \((.+?)\): (.+)", line)
        yield from _named(name, chinese, f"{name} ({chinese}): {value}")


def _taken_apart(pattern: str, line: str) -> tuple[str, ...]:
    match = re.fullmatch(pattern, line)
    assert match is not None, line
    return match.groups()


def _named(name: str, chinese: str, fact: str) -> Iterator[tuple[str, str]]:
    yield name.removeprefix("the ").casefold(), fact
    yield chinese, fact


FACTS = dict(_facts())
# English names are whole words; of names inside one another the longer one is meant, 金星 (Venus) and not 金 (gold).
_NAMES = re.compile(
    "|".join(
        rf"\b{re.escape(name)}\b" if name.isascii() else re.escape(name)
        for name in sorted(FACTS, key=len, reverse=True)
    )
)


def look_up(topic: str) -> str:
    """What is known about the things that `topic` names, a line each. Errors: ValueError when it names none."""
    if len(topic) > MAX_TOPIC:
        raise ValueError(f"the topic has {len(topic)} characters; at most {MAX_TOPIC} are allowed")
    found = dict.fromkeys(FACTS[name] for name in _NAMES.findall(topic.casefold()))
    if not found:
        raise ValueError(
            f"nothing is known about {topic[:50]!r}; there are countries, chemical elements, planets and constants"
        )
    return "\n".join([*found][:MAX_FOUND])
