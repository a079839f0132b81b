"""The judge's labels where the verifier does not contradict them: every case by hand."""

from rlhf_prm.generation.tasks import Rejection
from rlhf_prm.step_data import labels_from_first_error
from rlhf_prm.toyworld.labels import confirmed_labels

PROMPT = "Left to right, mod 10: 7 Add 3 Times 4"
RIGHT = ["7 Add 3 = 0", "0 Times 4 = 0", "Answer: \\boxed{0}"]
WRONG = ["7 Add 3 = 1", "1 Times 4 = 4", "Answer: \\boxed{4}"]


class Scripted:
    """A sampler that ends as scripted, and remembers what it was asked."""

    def __init__(self, *completions):
        self.completions, self.prompts, self.n, self.seed = completions, [], None, None

    def generate(self, prompts, n=1, *, seed=None, stop=None):
        self.prompts, self.n, self.seed = list(prompts), n, seed
        return [list(group) for group in self.completions]


def row(steps):
    return {"prompt": PROMPT, "steps": steps, "solution": "0"}


def judged(first_error, steps=RIGHT):
    return labels_from_first_error(first_error, len(steps), "judge")


def confirmed(rows, labels, sampler, seed=0):
    return confirmed_labels(rows, labels, sampler, num_completions=2, seed=seed)


RIGHT_END, WRONG_END = "Answer: \\boxed{0}", "Answer: \\boxed{4}"


def test_an_error_is_kept_where_no_completion_from_there_ends_right():
    sampler, label = Scripted([WRONG_END, WRONG_END]), judged(0, WRONG)
    assert confirmed([row(WRONG)], [label], sampler) == [label]
    assert sampler.prompts == [PROMPT + "7 Add 3 = 1\n\n"] and sampler.n == 2


def test_an_error_is_contradicted_by_one_completion_that_ends_right():
    (only,) = confirmed([row(RIGHT)], [judged(1)], Scripted([WRONG_END, RIGHT_END]))
    assert isinstance(only, Rejection) and "1 of 2 right" in only.reason


def test_the_prefix_goes_up_to_and_including_the_error():
    sampler = Scripted([WRONG_END, WRONG_END])
    confirmed([row(RIGHT)], [judged(1)], sampler)
    assert sampler.prompts == [PROMPT + "7 Add 3 = 0\n\n0 Times 4 = 0\n\n"]


def test_no_error_is_kept_where_the_answer_is_right_and_nothing_is_sampled():
    sampler, fine = Scripted(), judged(-1)
    kept, contradicted = confirmed([row(RIGHT), row(WRONG)], [fine, fine], sampler)
    assert kept == fine and isinstance(contradicted, Rejection) and "0 of 1 right" in contradicted.reason
    assert sampler.prompts == []


def test_rejections_stay_and_every_completion_goes_to_its_solution():
    rejected, error = Rejection("tie"), judged(0)
    sampler = Scripted([RIGHT_END, RIGHT_END], [WRONG_END, WRONG_END])
    labels = [rejected, error, judged(-1), error]
    found = confirmed([row(RIGHT)] * 4, labels, sampler)
    assert found[0] is rejected and isinstance(found[1], Rejection) and found[2:] == [labels[2], error]


def test_a_solutions_completions_depend_on_the_seed_and_its_own_place():
    alone, among, other = Scripted([""]), Scripted([""], [""]), Scripted([""])
    confirmed([row(RIGHT)], [judged(0)], alone)
    confirmed([row(RIGHT)] * 2, [judged(0)] * 2, among)
    confirmed([row(RIGHT)], [judged(0)], other, seed=1)
    assert alone.seed == among.seed[:1] and len(set(among.seed)) == 2 and other.seed != alone.seed
