"""Every method once more, slowly: Python floats and loops over one group at a time, straight from the formulas."""

import math

EPSILON = 1e-4


class Group:
    """The real cells of one group as nested lists."""

    def __init__(self, scores, lengths, outcomes):
        self.p, self.n, self.o = scores, lengths, outcomes
        self.size = len(scores)
        self.rows = range(self.size)
        self.scorable = [i for i in self.rows if not math.isnan(outcomes[i])]
        self.correct = [i for i in self.scorable if outcomes[i] > 0.5]
        self.incorrect = [i for i in self.scorable if outcomes[i] <= 0.5]


def mean(values):
    return sum(values) / len(values) if values else 0.0


def normalized(value, values):
    if len(values) < 2:
        return 0.0
    variance = sum((v - mean(values)) ** 2 for v in values) / (len(values) - 1)
    return (value - mean(values)) / (math.sqrt(variance) + EPSILON)


def outcome_term(g, i):
    return normalized(g.o[i], [g.o[m] for m in g.scorable]) if i in g.scorable else 0.0


def leave_one_out_term(g, i):
    return g.o[i] - mean([g.o[m] for m in g.scorable if m != i]) if i in g.scorable else 0.0


def discounted(rewards, gamma=1.0):
    return [sum(gamma ** (j - k) * rewards[j] for j in range(k, len(rewards))) for k in range(len(rewards))]


def flat(rows):
    return [value for row in rows for value in row]


def outcome(g):
    return [[outcome_term(g, i)] * len(g.p[i]) for i in g.rows]


def immediate(g, process_weight=0.5):
    return [[outcome_term(g, i) + process_weight * p for p in g.p[i]] for i in g.rows]


def grpo_ps(g, reduce="sum", baseline="steps", outcome_weight=1.0):
    if baseline == "return":
        terms = leave_one_out(g, g.p)
        return [[value + outcome_weight * outcome_term(g, i) for value in terms[i]] for i in g.rows]
    z = [[normalized(p, flat(g.p)) for p in row] for row in g.p]
    returns = [discounted(row) for row in z]
    if reduce == "mean":
        returns = [[value / (len(row) - k) for k, value in enumerate(row)] for row in returns]
    return [[value + outcome_weight * outcome_term(g, i) for value in returns[i]] for i in g.rows]


def gamma_sum(g, gamma=1.0, outcome_weight=1.0):
    returns = [discounted(row, gamma) for row in g.p]
    baseline = mean([row[0] for row in returns])
    return [[value - baseline + outcome_weight * outcome_term(g, i) for value in returns[i]] for i in g.rows]


def leave_one_out(g, rewards, gamma=1.0, rows=None, ended=None):
    """Discounted returns less the others' mean from the same step; ``ended`` or 0 where they are over."""
    rows = list(g.rows) if rows is None else rows
    returns = {i: discounted(rewards[i], gamma) for i in rows}
    result = [[0.0] * len(row) for row in rewards]
    for i in rows:
        for k, value in enumerate(returns[i]):
            others = [returns[m][k] if k < len(returns[m]) else ended[m] if ended else 0.0 for m in rows if m != i]
            result[i][k] = value - mean(others) if others else 0.0
    return result


def soft_min(q, temperature):
    weights = [math.exp(-(value - min(q)) / temperature) for value in q]
    return [w / sum(weights) * value for w, value in zip(weights, q, strict=True)]


def pure(g, temperature=0.1, baseline="token", outcome_weight=1.0):
    rewards = [soft_min([2 * p - 1 for p in row], temperature) for row in g.p]
    if baseline == "return":
        terms = leave_one_out(g, rewards)
        return [[value + outcome_weight * leave_one_out_term(g, i) for value in terms[i]] for i in g.rows]
    result = []
    for i in g.rows:
        others = [m for m in g.rows if m != i]
        if baseline == "token":
            tokens = sum(sum(g.n[m]) for m in others)
            rate = sum(sum(rewards[m]) for m in others) / tokens if tokens else 0.0
            charged = [r - rate * n for r, n in zip(rewards[i], g.n[i], strict=True)]
        elif baseline == "step":
            charged = [r - mean([sum(rewards[m]) / len(rewards[m]) for m in others]) for r in rewards[i]]
        else:
            charged = rewards[i]
        result.append([value + outcome_weight * leave_one_out_term(g, i) for value in discounted(charged)])
    return result


def pure_strict(g, outcome_weight=1.0):
    returns = [[min(2 * p - 1 for p in row[k:]) for k in range(len(row))] for row in g.p]
    averages = []
    for i in g.rows:
        tokens = sum(g.n[i])
        averages.append(sum(n * v for n, v in zip(g.n[i], returns[i], strict=True)) / tokens if tokens else 0.0)
    result = []
    for i in g.rows:
        baseline = mean([averages[m] for m in g.rows if m != i])
        result.append([v - baseline + outcome_weight * leave_one_out_term(g, i) for v in returns[i]])
    return result


def clip_delta(g, threshold=0.5, outcome_weight=1.0):
    clipped = [[min(p - threshold, 0.0) for p in row] for row in g.p]
    rewards = [[c - (row[k + 1] if k + 1 < len(row) else 0.0) for k, c in enumerate(row)] for row in clipped]
    returns = [discounted(row) for row in rewards]
    baseline = mean(flat(returns))
    return [[value - baseline + outcome_weight * outcome_term(g, i) for value in returns[i]] for i in g.rows]


def progress(g, alpha=1.0, initial=0.5, outcome_weight=1.0):
    rewards = [[alpha * (p - (row[k - 1] if k else initial)) for k, p in enumerate(row)] for row in g.p]
    returns = [discounted(row) for row in rewards]
    baseline = mean(flat(returns))
    return [[value - baseline + outcome_weight * outcome_term(g, i) for value in returns[i]] for i in g.rows]


def potential(g, gamma=1.0, initial=None):
    start = mean([g.o[i] for i in g.scorable]) if initial is None else initial
    result = []
    for i in g.rows:
        steps = len(g.p[i])
        phi = [start, *g.p[i][:-1], 0.0]
        shaping = discounted([gamma * phi[k + 1] - phi[k] for k in range(steps)], gamma)
        judged = i in g.scorable
        result.append([gamma ** (steps - 1 - k) * g.o[i] + shaping[k] if judged else 0.0 for k in range(steps)])
    return result


def prof(g, keep=0.5, penalty=10.0, max_steps=30):
    consistency = []
    for i in g.rows:
        ill_formed = len(g.p[i]) <= 1 or len(g.p[i]) >= max_steps
        consistency.append(mean(g.p[i]) - penalty * ill_formed * (1 if i in g.correct else -1))
    total = min(math.floor(keep * g.size + 0.5), len(g.scorable))
    splits = [
        (right * (total - right), right)
        for right in range(total + 1)
        if right <= len(g.correct) and total - right <= len(g.incorrect)
    ]
    right = max(splits)[1]
    kept = sorted(g.correct, key=lambda i: -consistency[i])[:right]
    kept += sorted(g.incorrect, key=lambda i: consistency[i])[: total - right]
    values = [g.o[i] for i in kept]
    return [[normalized(g.o[i], values) if i in kept else 0.0] * len(g.p[i]) for i in g.rows]


def vppo(g, threshold=0.8, alpha=0.5):
    rewards, averages = {}, {}
    for i in g.scorable:
        first = next((k for k, p in enumerate(g.p[i]) if p < threshold), len(g.p[i]))
        rewards[i] = [1.0 if i in g.correct else alpha * (k < first) for k in range(len(g.p[i]))]
        tokens = sum(g.n[i])
        averages[i] = sum(n * a for n, a in zip(g.n[i], rewards[i], strict=True)) / tokens if tokens else 0.0
    baseline = mean(list(averages.values()))
    return [[a - baseline for a in rewards[i]] if i in rewards else [0.0] * len(g.p[i]) for i in g.rows]


def progrs(g, beta=0.5):
    centre = mean(flat([g.p[i] for i in g.incorrect]))
    bonus = {i: discounted([p - centre * (i in g.incorrect) for p in g.p[i]]) for i in g.scorable}
    everything = flat(bonus.values())
    result = []
    for i in g.rows:
        extra = [beta * normalized(b, everything) for b in bonus[i]] if i in bonus else [0.0] * len(g.p[i])
        result.append([outcome_term(g, i) + value for value in extra])
    return result


def papo(g, beta=0.5):
    means = [mean(g.p[i]) for i in g.correct]
    result = []
    for i in g.rows:
        quality = normalized(mean(g.p[i]), means) if i in g.correct else 0.0
        result.append([outcome_term(g, i) + beta * quality] * len(g.p[i]))
    return result


def verigate(g):
    if g.correct and g.incorrect:
        return outcome(g)
    returns = {i: discounted(g.p[i]) for i in g.scorable if not g.correct}
    everything = flat(returns.values())
    return [
        [normalized(value, everything) for value in returns[i]] if i in returns else [0.0] * len(g.p[i]) for i in g.rows
    ]


def vine(g):
    result = []
    for i in g.rows:
        others = [g.o[m] for m in g.scorable if m != i]
        values = [*g.p[i][:-1], g.o[i]]
        before = [mean(others), *values[:-1]]
        result.append([v - b if i in g.scorable else 0.0 for v, b in zip(values, before, strict=True)])
    return result


def capo(g, outcome_weight=2.0, process_weight=1.0, threshold=0.5):
    rewards = {i: [outcome_weight * g.o[i] - process_weight * (p <= threshold) for p in g.p[i]] for i in g.scorable}
    tokens = [r for i in rewards for r, n in zip(rewards[i], g.n[i], strict=True) for _ in range(n)]
    centre = mean(tokens)
    spread = math.sqrt(sum((r - centre) ** 2 for r in tokens) / max(len(tokens) - 1, 1)) + EPSILON
    return [
        [(r - centre) / spread for r in rewards[i]] if i in rewards and tokens else [0.0] * len(g.p[i]) for i in g.rows
    ]


def fapo(g, penalty=1.0, threshold=0.5):
    rewards = [
        g.o[i] - penalty / 2 * (i in g.correct and any(p <= threshold for p in g.p[i])) if i in g.scorable else None
        for i in g.rows
    ]
    known = [r for r in rewards if r is not None]
    return [[0.0 if r is None else normalized(r, known)] * len(g.p[i]) for i, r in enumerate(rewards)]


def srar(g, process_weight=1.0):
    result = []
    for i in g.rows:
        row = []
        for k, p in enumerate(g.p[i]):
            there = [other[k] for other in g.p if k < len(other)]
            spread = math.sqrt(sum((x - mean(there)) ** 2 for x in there) / max(len(there) - 1, 1))
            offset = (p - mean(there)) / (spread + 1e-6) if spread > 1e-6 else 0.0
            row.append(outcome_term(g, i) + process_weight * offset)
        result.append(row)
    return result


def turn_rewards(g, process_weight, neutral):
    """What each step is paid: its score, and at the end the outcome."""
    rows = []
    for i in g.rows:
        last = len(g.p[i]) - 1
        paid = g.o[i] if i in g.scorable else 0.0
        rows.append([process_weight * (p - neutral) + paid * (k == last) for k, p in enumerate(g.p[i])])
    return rows


def among(value, values, scaled):
    """value − mean, or over the std + 1e-6 as well; nothing where it is the only one."""
    if len(values) < 2:
        return 0.0
    spread = math.sqrt(sum((v - mean(values)) ** 2 for v in values) / (len(values) - 1)) + 1e-6 if scaled else 1.0
    return (value - mean(values)) / spread


def gigpo(g, gamma=1.0, state_weight=1.0, mode="mean_norm", process_weight=0.0, neutral=0.0):
    rewards, scaled = turn_rewards(g, process_weight, neutral), mode == "mean_std_norm"
    returns = [discounted(row, gamma) for row in rewards]
    states = [[length % 4 - 1 for length in row] for row in g.n]
    totals = flat([[sum(rewards[i])] * len(g.p[i]) for i in g.scorable])
    result = [[0.0] * len(row) for row in g.p]
    for i in g.scorable:
        for k, state in enumerate(states[i]):
            alike = [returns[m][j] for m in g.scorable for j, s in enumerate(states[m]) if s == state]
            own = among(returns[i][k], alike, scaled) if state >= 0 else 0.0
            result[i][k] = among(sum(rewards[i]), totals, scaled) + state_weight * own
    return result


def mt_grpo(g, form="aae", turn_weight=1.0, gamma=1.0, neutral=0.0):
    to_come = [discounted([p - neutral for p in row]) for row in g.p]

    def left(i, k):
        return to_come[i][k] if k < len(to_come[i]) else 0.0

    result = []
    for i in g.rows:
        row = []
        for k in range(len(g.p[i])):
            if form == "aae":
                term = outcome_term(g, i) + turn_weight * normalized(left(i, k), [left(m, k) for m in g.rows])
            else:
                paid = {m: turn_weight * left(m, k) + gamma * g.o[m] for m in g.scorable}
                term = normalized(paid[i], list(paid.values())) if i in paid else 0.0
            row.append(term)
        result.append(row)
    return result


def gtpo(g, gamma=0.95, process_weight=1.0, neutral=0.0, baseline="steps"):
    rewards = turn_rewards(g, process_weight, neutral)
    if baseline == "return":
        return leave_one_out(g, rewards, gamma, g.scorable, g.o)
    returns = {i: discounted(rewards[i], gamma) for i in g.scorable}
    everything = flat(returns.values())
    return [[normalized(v, everything) for v in returns[i]] if i in returns else [0.0] * len(g.p[i]) for i in g.rows]


def positional(g):
    """Each score minus the mean score of the group's other rollouts at the same step."""
    result = []
    for i in g.rows:
        others = [[g.p[m][k] for m in g.rows if m != i and k < len(g.p[m])] for k in range(len(g.p[i]))]
        result.append([p - mean(there) if there else 0.0 for p, there in zip(g.p[i], others, strict=True)])
    return result


def correlation(groups):
    """ρ of summed positional credit and right or wrong, over groups with both, and the degrees of freedom."""
    pairs, freedom = [], 0
    for g in groups:
        if not (g.correct and g.incorrect):
            continue
        credit = {i: sum(positional(g)[i]) for i in g.scorable}
        right = {i: float(i in g.correct) for i in g.scorable}
        freedom += len(g.scorable) - 1
        pairs += [(credit[i] - mean(list(credit.values())), right[i] - mean(list(right.values()))) for i in g.scorable]
    spread = math.sqrt(sum(c * c for c, _ in pairs) * sum(o * o for _, o in pairs))
    return (sum(c * o for c, o in pairs) / spread if spread else 0.0), freedom
