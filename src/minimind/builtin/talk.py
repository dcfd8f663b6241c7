"""Small talk and common knowledge: what can only be remembered, so that training repeats it and no test asks for it."""

from random import Random

from minimind.builtin.skills import Exchange, Wordings, pick
from minimind.builtin.words import COLOURS, ITEMS

__all__ = ["draw_talk"]

# (ways to say it, ways to reply)
SMALL_TALK = {
    "en": (
        (
            ("Hi!", "Hello.", "Hey there!", "Hello, MiniMind."),
            ("Hello! How can I help you?", "Hi! What can I do for you?"),
        ),
        (("Good morning!", "Morning!"), ("Good morning! How can I help you?",)),
        (("Good night.", "I am going to bed."), ("Good night! Sleep well.",)),
        (("How are you?", "How is it going?", "How do you do?"), ("I am fine, thank you. And you?",)),
        (("I am fine too.", "I am well."), ("I am glad to hear that.",)),
        (("Thank you.", "Thanks!", "Thanks a lot."), ("You are welcome.",)),
        (("Goodbye.", "Bye!", "See you later."), ("Goodbye! Have a good day.",)),
        (("I am tired.", "I had a long day."), ("Take a rest. You will feel better.",)),
        (("I am happy today.", "Today is a good day."), ("That is good to hear! What happened?",)),
        (("I am sad.", "I feel bad today."), ("I am sorry to hear that. Do you want to talk about it?",)),
        (("Tell me a joke.", "Say something funny."), ("Why is six afraid of seven? Because seven ate nine.",)),
        (("You are very kind.", "You are smart."), ("Thank you! I do my best.",)),
        (("I like you.", "I like talking to you."), ("Thank you! I like talking to you too.",)),
        (("What is the weather like?", "Will it rain today?"), ("I cannot see the weather from here.",)),
        (("What time is it?", "What day is it today?"), ("I do not have a clock, so I cannot tell.",)),
        (("I am hungry.", "I want to eat something."), ("How about some rice, or a bowl of soup?",)),
        (("Can you help me?", "I need your help."), ("Of course. What do you need?",)),
        (("Sorry.", "I am sorry."), ("No problem.",)),
        (("I do not understand.", "What do you mean?"), ("Let me say it in another way. What is not clear?",)),
        (("Happy new year!",), ("Happy new year! I wish you all the best.",)),
    ),
    "zh": (
        (("你好！", "你好。", "嗨！", "你好，MiniMind。"), ("你好！我能帮你做什么？", "你好！有什么事吗？")),
        (("早上好！", "早！"), ("早上好！我能帮你做什么？",)),
        (("晚安。", "我要去睡觉了。"), ("晚安！祝你睡个好觉。",)),
        (("你好吗？", "最近怎么样？", "你还好吗？"), ("我很好，谢谢。你呢？",)),
        (("我也很好。", "我挺好的。"), ("那太好了。",)),
        (("谢谢你。", "谢谢！", "非常感谢。"), ("不客气。",)),
        (("再见。", "拜拜！", "回头见。"), ("再见！祝你今天愉快。",)),
        (("我很累。", "今天好累啊。"), ("休息一下吧，会好起来的。",)),
        (("我今天很高兴。", "今天真是好日子。"), ("真为你高兴！发生了什么事？",)),
        (("我很难过。", "我今天心情不好。"), ("听到这个我很难过，你想说说吗？",)),
        (("讲个笑话吧。", "说点好玩的。"), ("数字六为什么怕七？因为七吃了九。",)),
        (("你真好。", "你很聪明。"), ("谢谢！我会努力的。",)),
        (("我喜欢你。", "我喜欢和你聊天。"), ("谢谢！我也喜欢和你聊天。",)),
        (("今天天气怎么样？", "今天会下雨吗？"), ("我在这里看不到天气。",)),
        (("现在几点了？", "今天星期几？"), ("我没有钟，所以不知道。",)),
        (("我饿了。", "我想吃点东西。"), ("吃点米饭，或者喝碗汤怎么样？",)),
        (("你能帮我吗？", "我需要你的帮助。"), ("当然可以。你需要什么？",)),
        (("对不起。", "不好意思。"), ("没关系。",)),
        (("我不明白。", "这是什么意思？"), ("我换个说法。哪里不清楚？",)),
        (("新年快乐！",), ("新年快乐！祝你万事如意。",)),
    ),
}
TALK_REASONING = {"en": "The user is making small talk.", "zh": "用户在和我聊天。"}

# English and Chinese of a country and its capital.
CAPITALS = tuple(
    tuple(line.split(","))
    for line in """
China,Beijing,中国,北京
Japan,Tokyo,日本,东京
France,Paris,法国,巴黎
Germany,Berlin,德国,柏林
Italy,Rome,意大利,罗马
Spain,Madrid,西班牙,马德里
Russia,Moscow,俄罗斯,莫斯科
Egypt,Cairo,埃及,开罗
Greece,Athens,希腊,雅典
Canada,Ottawa,加拿大,渥太华
Norway,Oslo,挪威,奥斯陆
Cuba,Havana,古巴,哈瓦那
Kenya,Nairobi,肯尼亚,内罗毕
Thailand,Bangkok,泰国,曼谷
Austria,Vienna,奥地利,维也纳
""".strip().splitlines()
)
OPPOSITES = tuple(
    tuple(line.split())
    for line in """
big small 大 小
hot cold 热 冷
high low 高 低
long short 长 短
fast slow 快 慢
new old 新 旧
good bad 好 坏
early late 早 晚
near far 近 远
open closed 开 关
heavy light 重 轻
full empty 满 空
""".strip().splitlines()
)
DAYS = {
    "en": ("Monday", "Tuesday", "Wednesday", "Thursday", "Friday", "Saturday", "Sunday"),
    "zh": ("星期一", "星期二", "星期三", "星期四", "星期五", "星期六", "星期日"),
}
CAPITAL: Wordings = {
    "en": ("What is the capital of {}?", "Which city is the capital of {}?"),
    "zh": ("{}的首都是哪里？", "{}的首都是哪个城市？"),
}
OPPOSITE: Wordings = {
    "en": ("What is the opposite of {}?", "Give the opposite of {}."),
    "zh": ("“{}”的反义词是什么？", "说出“{}”的反义词。"),
}
TRANSLATE: Wordings = {
    "en": ("How do you say {} in Chinese?", "What is {} in Chinese?"),
    "zh": ("“{}”用英文怎么说？", "{}的英文是什么？"),
}
DAY: Wordings = {
    "en": ("What day comes after {}?", "Which day is after {}?"),
    "zh": ("{}的后一天是星期几？", "{}之后是星期几？"),
}
FACT_REASONING = {"en": "I know this one.", "zh": "这个我知道。"}


def draw_talk(random: Random, language: str) -> Exchange:
    """Small talk or, as often, something to know."""
    if random.random() < 0.5:
        said, replies = random.choice(SMALL_TALK[language])
        return Exchange(random.choice(said), random.choice(replies), TALK_REASONING[language])
    question, answer = random.choice((_capital, _opposite, _translation, _day))(random, language)
    return Exchange(question, answer, FACT_REASONING[language])


def _capital(random: Random, language: str) -> tuple[str, str]:
    country, city, guojia, chengshi = random.choice(CAPITALS)
    if language == "en":
        return pick(random, CAPITAL, language).format(country), f"The capital of {country} is {city}."
    return pick(random, CAPITAL, language).format(guojia), f"{guojia}的首都是{chengshi}。"


def _opposite(random: Random, language: str) -> tuple[str, str]:
    words = random.choice(OPPOSITES)
    pair = random.sample(words[:2] if language == "en" else words[2:], 2)
    return pick(random, OPPOSITE, language).format(pair[0]), pair[1]


def _translation(random: Random, language: str) -> tuple[str, str]:
    english, chinese = random.choice((*((item.en, item.zh) for item in ITEMS), *COLOURS))
    word, answer = (english, chinese) if language == "en" else (chinese, english)
    return pick(random, TRANSLATE, language).format(word), answer


def _day(random: Random, language: str) -> tuple[str, str]:
    days = DAYS[language]
    index = random.randrange(7)
    return pick(random, DAY, language).format(days[index]), days[(index + 1) % 7]
