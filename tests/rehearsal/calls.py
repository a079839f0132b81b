"""A tiny policy does not know how to call a tool: every fourth rollout begins with a call that is written for it."""

from trl import GRPOTrainer

CALL = '<tool_call>\n{"name": "python", "arguments": {"code": "print(6 * 7)"}}\n</tool_call><|im_end|>'
EVERY = 4

_generate_single_turn = GRPOTrainer._generate_single_turn


def some_call(self, prompt_ids, *args, **kwargs):
    """As TRL's ``_generate_single_turn``; in first turns every fourth rollout is the call."""
    ids, logprobs = _generate_single_turn(self, prompt_ids, *args, **kwargs)
    tokenizer = self.processing_class
    call = tokenizer(CALL)["input_ids"]
    for row, prompt in enumerate(prompt_ids):
        asked_already = tokenizer.decode(prompt).rpartition("<|im_start|>user")[2].startswith("\n<tool_response>")
        if row % EVERY == 0 and not asked_already:
            ids[row] = call
    return ids, logprobs
