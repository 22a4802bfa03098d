"""Sample texts, each over 300 tokens in o200k_base."""

# ruff: noqa: E501
from __future__ import annotations

ENGLISH = (
    "The lighthouse keeper wrote his letters on Sundays, when the supply boat did not come. "
    "He wrote about the gulls, about the price of lamp oil in 1911, and about the fog that "
    '"walked up the stairs like a tired guest". Nobody answered, which didn\'t surprise him: '
    "he had stopped posting them years ago! Instead he numbered each sheet, folded it twice, "
    "and slid it behind the third panel of the gallery wall.\n\nWhen the panel was opened, a "
    "century later, the restorers counted 2,347 pages. Some were stuck together by salt; others "
    "were as crisp as on the day they'd been hidden. The first began: 'If you are reading this, "
    "the light is out, and I am sorry.'  The last one ended in the middle of a word.\n\n"
    "What do we owe to letters that were never sent? A museum in the next town offered to show "
    "them behind glass; the keeper's great-granddaughter asked for them back; a linguist from "
    "Trondheim begged for a week with page 1,102 only, where (she said) an unknown dialect word "
    "for 'weather' appeared three times. In the end they were photographed, page after page, "
    "and put online, with a search box and a map. Visitors come, type a name, and find nothing. "
    "Then they type 'fog', and they stay for hours. It's odd, isn't it, how much of a life can "
    "be kept behind a thin wooden panel, and how little of it needs an answer.\n\n"
    "Every autumn the village lights the lamp once, by hand, at 17:45 sharp, and reads a single "
    "page aloud. Nobody chooses the page; a child draws a number from a tin. Last year it was "
    "page 7: a list of eleven things he missed, of which bread was the fourth."
)

CODE = '''\
from __future__ import annotations

import heapq
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field


@dataclass(order=True, slots=True)
class Job:
    """A job that becomes ready at a time; ties go to the lower priority number."""

    ready_at: float
    priority: int = 0
    name: str = field(default="", compare=False)


class Scheduler:
    def __init__(self, jobs: Iterable[Job] = ()) -> None:
        self._heap: list[Job] = list(jobs)
        heapq.heapify(self._heap)

    def add(self, job: Job) -> None:
        heapq.heappush(self._heap, job)

    def due(self, now: float) -> Iterator[Job]:
        while self._heap and self._heap[0].ready_at <= now:
            yield heapq.heappop(self._heap)

    def __len__(self) -> int:
        return len(self._heap)


def main() -> None:
    scheduler = Scheduler(Job(ready_at=0.25 * i, priority=i % 3, name=f"job-{i}") for i in range(10))
    for tick in range(0x10):
        for job in scheduler.due(now=tick / 4):
            print(f"{tick:>4}  {job.name!s:<10}  p={job.priority}  @{job.ready_at:.2f}s")
    assert len(scheduler) == 0, "all jobs ran"


if __name__ == "__main__":
\tmain()  # tab on purpose
'''

CJK = (
    "灯塔看守人每逢星期天写信,因为那天补给船不来。他写海鸥,写一九一一年的灯油价格,"
    "也写那场「像疲倦的客人一样走上楼梯」的大雾。没有人回信,他并不惊讶:多年前他就不再寄了。"
    "他给每一页编上号码,折两次,塞进走廊墙壁的第三块木板后面。\n\n"
    "百年后、その板が開けられたとき、修復士たちは二千三百四十七枚の紙を数えた。"
    "塩でくっついているものもあれば、隠された日のままのものもあった。最初の一枚はこう始まる。"
    "『これを読んでいるなら、灯りは消えている。すまない』。最後の一枚は言葉の途中で終わっていた。\n\n"
    "보내지 않은 편지에 우리는 무엇을 빚지고 있을까? 이웃 도시의 박물관은 유리 뒤에 전시하겠다고 했고, "
    "증손녀는 돌려 달라고 했다. 어느 언어학자는 천백두 번째 쪽만 일주일 동안 보게 해 달라고 부탁했다. "
    "結局、すべてのページが撮影され、検索窓と地図と一緒に公開された。訪れる人は名前を入れ、何も見つけられず、"
    "それから「霧」と打ち、何時間もそこにとどまる。每年秋天,村里的人会亲手点一次灯,大声念一页。"
    "没有人挑选页码;一个孩子从铁盒里抽出数字。去年抽到的是第七页:他想念的十一样东西,面包排第四。"
)

EMOJI = (
    "Status: 🚀🚀 liftoff! 👩‍👩‍👧‍👦 family of four, 🏳️‍🌈 flag, 🧑🏽‍🚀 astronaut, 👍🏿👍🏻 thumbs; 🇳🇴🇯🇵🇧🇷 flags "
    "→ 1️⃣2️⃣3️⃣ keycaps… ❤️‍🔥 and ✍🏼 and 🫠🫡🫥. Ünïcödé: naïve café, Ελληνικά, עברית, العربية, हिन्दी, ไทย 🐘🦥🦦 "
    "🎛️⚙️🛠️ = 🧩+🧠; ½ + ¼ = ¾ ∑∏∫√∞ ≤≥≠ ℝℂℕ 𝔘𝔫𝔦𝔠𝔬𝔡𝔢 ②③⑩ ﷽ ꧁꧂ Z̸͉̅a̷l̵g̶o̸ \u200b\u00a0\u2028 end 🏁 "
) * 2

SAMPLES = {"english": ENGLISH, "code": CODE, "cjk": CJK, "emoji": EMOJI}
