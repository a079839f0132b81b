"""Ragged rollouts that the scorer's tests share."""

PROBLEMS = [
    "Janet has 16 eggs a day. She eats 3 and sells the rest for $2 each. How many dollars does she make?",
    "What is 2 + 3?",
    "Ein Zug fährt 60 km in 45 Minuten. Wie schnell ist er?",
]
STEPS = [
    ["16 - 3 = 13 eggs are left.", "13 * 2 = 26 dollars.", "The answer is \\boxed{26}."],
    ["16 + 3 = 19\nand so on", "19 * 2 = 38"],
    ["5"],
    ["2 + 3 = 5, as 3 + 2 = 5.", "So the answer is \\boxed{5}."],
    ["60 / 45 = 4/3 km per minute", "4/3 * 60 = 80", "80 km/h", "\\boxed{80}", "Done."],
    ["16 - 3 = 13 eggs are left.", "13 * 2 = 26 dollars.", "The answer is \\boxed{26}."],
]
OWNER = [0, 0, 1, 1, 2, 0]


def ragged() -> tuple[list[str], list[list[str]]]:
    """Six rollouts of three problems, of one to five steps; the last repeats the first."""
    return [PROBLEMS[i] for i in OWNER], [list(steps) for steps in STEPS]
