"""Word lists of the built-in questions, each entry in English and Chinese, all written for this project.

The words are short and common, so that a small vocabulary holds most of them as one or two tokens.
"""

from dataclasses import dataclass

__all__ = ["COLOURS", "ITEMS", "LANGUAGES", "PLACES", "Item"]

LANGUAGES = ("en", "zh")


@dataclass(frozen=True)
class Item:
    """Something to name, colour, place and count; `measure` is the Chinese word between a number and the noun."""

    en: str
    plural: str
    zh: str
    measure: str


def _items(lines: str) -> tuple[Item, ...]:
    return tuple(Item(*line.split()) for line in lines.strip().splitlines())


ITEMS = _items("""
    apple apples 苹果 个
    ball balls 球 个
    bag bags 包 个
    bell bells 铃 个
    bird birds 鸟 只
    boat boats 船 条
    book books 书 本
    bottle bottles 瓶子 个
    bowl bowls 碗 个
    box boxes 盒子 个
    cake cakes 蛋糕 个
    car cars 汽车 辆
    card cards 卡片 张
    cat cats 猫 只
    chair chairs 椅子 把
    clock clocks 钟 个
    coat coats 大衣 件
    cow cows 牛 头
    cup cups 杯子 个
    dog dogs 狗 只
    door doors 门 扇
    duck ducks 鸭子 只
    egg eggs 鸡蛋 个
    fish fish 鱼 条
    flag flags 旗 面
    flower flowers 花 朵
    hat hats 帽子 顶
    horse horses 马 匹
    house houses 房子 座
    key keys 钥匙 把
    kite kites 风筝 个
    lamp lamps 灯 盏
    leaf leaves 叶子 片
    map maps 地图 张
    orange oranges 橙子 个
    pear pears 梨 个
    pen pens 笔 支
    phone phones 手机 部
    plate plates 盘子 个
    rabbit rabbits 兔子 只
    ring rings 戒指 枚
    rope ropes 绳子 根
    sheep sheep 羊 只
    shirt shirts 衬衫 件
    shoe shoes 鞋 只
    spoon spoons 勺子 把
    star stars 星星 颗
    stone stones 石头 块
    table tables 桌子 张
    train trains 火车 列
    tree trees 树 棵
    umbrella umbrellas 雨伞 把
    watch watches 手表 块
    window windows 窗户 扇
""")

# (English, Chinese)
COLOURS = (
    ("red", "红色"),
    ("blue", "蓝色"),
    ("green", "绿色"),
    ("yellow", "黄色"),
    ("white", "白色"),
    ("black", "黑色"),
    ("brown", "棕色"),
    ("grey", "灰色"),
    ("pink", "粉色"),
    ("purple", "紫色"),
)

PLACES = (
    ("in the garden", "花园里"),
    ("in the kitchen", "厨房里"),
    ("in the river", "河里"),
    ("in the school", "学校里"),
    ("in the shop", "商店里"),
    ("in the street", "街上"),
    ("on the bed", "床上"),
    ("on the hill", "山上"),
    ("on the roof", "屋顶上"),
    ("on the wall", "墙上"),
    ("under the bridge", "桥下"),
    ("behind the gate", "大门后面"),
    ("near the lake", "湖边"),
    ("by the road", "路边"),
)
