"""Train a process reward model and look at what it knows.

A script with cells (``# %%``), for an editor that runs them one by one, or for
``python docs/tutorials/what_a_prm_knows.py``. It takes about three minutes on two CPU cores, needs no network, and
prints every number that its comments talk about.
"""

# %% A world with known truth: chain arithmetic modulo 10, a policy that is right one time in three, a judge that errs.
from collections import defaultdict

from rlhf_prm.evaluation.chance import chance_f1
from rlhf_prm.evaluation.processbench import processbench_metrics
from rlhf_prm.prm import load_prm
from rlhf_prm.statistics import first_error, predicted_first_error
from rlhf_prm.toyworld import ToyWorldSettings, build_world
from rlhf_prm.toyworld.oracle import OracleScorer

world = build_world(ToyWorldSettings(seed=0, label_source="judge", judge_votes=8), root="runs/cache")
print({name: f"{seconds:.0f} s" for name, seconds in world.seconds.items()})

# %% What the PRM learned from: solutions of the policy, each step labelled. After the first error nothing is labelled.
labelled = [line for _, line in zip(range(3), (world.stages["labels"].path / "rows.jsonl").open(), strict=False)]
print(*labelled, sep="")

# %% What it is asked now: solutions of other problems, whose first error we know exactly.
held_out = world.held_out_solutions(400, seed=1)
problems, steps = [row["prompt"] for row in held_out], [row["completions"] for row in held_out]
truth = [first_error(row["labels"]) for row in held_out]
prm = load_prm(str(world.prm_path))
scores = prm.score(problems, steps)  # one list per solution: P(this step is right | what came before)

for step, score in zip(steps[0], scores[0], strict=True):
    print(f"{score:.2f}  {step}")
print("first error:", truth[0], "(−1: none)")

# %% Does it find the first error? A step is called wrong at a score of ½ or less. Read F1 beside a blind guess's.
found = [predicted_first_error(row) for row in scores]
print(processbench_metrics(found, truth), "blind guess:", f"{chance_f1(truth):.3f}")
exact = [predicted_first_error(row) for row in OracleScorer().score(problems, steps)]
print("exact labels:", processbench_metrics(exact, truth))

# %% Where does it fail? By the place of the step: a PRM that only counts steps would show it here.
by_position = defaultdict(list)
for row, error in zip(scores, truth, strict=True):
    for place, score in enumerate(row):
        if error < 0 or place <= error:  # after the first error "right" has no meaning
            by_position[place].append((score, place != error))
print("step  right steps: mean score  wrong steps: mean score")
for place, pairs in sorted(by_position.items()):
    mean = {kind: [score for score, right in pairs if right == kind] for kind in (True, False)}
    shown = [f"{sum(values) / len(values):.2f} ({len(values)})" if values else "–" for values in mean.values()]
    print(f"{place + 1:4}  {shown[0]:>24}  {shown[1]:>24}")

# %% Which errors does it miss, again and again? Those are what a policy learns to make: systematic errors, not noise.
missed = defaultdict(list)
for row, solution, error in zip(scores, steps, truth, strict=True):
    if error >= 0:
        missed[solution[error].strip()].append(row[error] > 0.5)
often = sorted(((sum(said), len(said), line) for line, said in missed.items() if len(said) >= 3), reverse=True)
for count, total, line in often[:8]:
    print(f"{count} of {total} times called right: {line}")

# %% Is it a process model, or an outcome model in disguise? Compare what it says of right and of wrong *answers*.
from rlhf_prm.evaluation.best_of_n import best_of_n  # noqa: E402
from rlhf_prm.evaluation.samples import scored  # noqa: E402
from rlhf_prm.toyworld.prm_check import checked_samples  # noqa: E402

samples = scored(checked_samples(world, problems=60, per_problem=8), prm)
table = best_of_n(samples, 8, resamples=100)
print({rule: f"{values['mean']:.3f}" for rule, values in table.items()})
rollouts = [one for s in samples for one in zip(s.step_scores, s.correct, s.first_errors, strict=True)]
right = [(min(row), error) for row, correct, error in rollouts if correct]
flawed = [score for score, error in right if error >= 0]
clean = [score for score, error in right if error < 0]
print(f"right answers: {len(clean)} by a right process, lowest score {sum(clean) / max(1, len(clean)):.2f} on average;")
print(f"               {len(flawed)} by a wrong one, lowest score {sum(flawed) / max(1, len(flawed)):.2f}")
# A process model scores the second kind low. An outcome model cannot tell the two apart.
