"""A judge for the recipe, by dotted path: it calls the last step of every solution wrong that has more than one."""


class LastStepJudge:
    def generate(self, prompts, n, *, seed=None, stop=None):
        return [[self._answer(chat[-1]["content"])] * n for chat in prompts]

    def _answer(self, question: str) -> str:
        steps = question.count("</paragraph_")
        told = [f"<analysis_{k}>\nfine\n</analysis_{k}>" for k in range(1, steps)]
        right = steps == 1
        told.append(f"<analysis_{steps}>\n{'fine' if right else 'wrong'}\n</analysis_{steps}>")
        return "\n".join([*told, f"<conclusion>\n{'Correct' if right else 'Incorrect'}\n</conclusion>"])


def judge(config, concurrency):
    return LastStepJudge()
