"""What the bar of a pass tells while it runs."""

from __future__ import annotations

import io
import re

from tqdm import tqdm

from g2r_lightning.teacher.shards import Progress


def test_the_bar_tells_rates_and_counts_contexts_once_for_several_decodings() -> None:
    shown = io.StringIO()
    form = "{desc}: {n:.0f}/{total_fmt} [{elapsed}<{remaining}{postfix}]"
    with tqdm(total=4, desc="generating", file=shown, bar_format=form, mininterval=0) as bar:
        tell = Progress(bar, rounds=2)
        for _ in range(2):  # two decodings, each over both contexts
            tell(2, 6, 30)
        assert bar.n == 2
        bar.refresh()
    last = shown.getvalue().split("\r")[-1]
    told = re.search(r"2/4 \[\d\d:\d\d<\d\d:\d\d, (\d+\.\d) reply/s, (\d+) token/s\]", last)
    assert told, last
    replies, tokens = map(float, told.groups())
    assert abs(tokens - 5 * replies) <= 1  # rates of the same seconds: 60 tokens and 12 replies
