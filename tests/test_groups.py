"""Under xdist, tests that one launch of two ranks or one built world serves run in one process."""

from tests.conftest import group_of


def test_groups_by_name():
    ranks = "tests/distributed/test_ranks.py::test_two_ranks_equal_one[cpu_zero3-DistributedType.DEEPSPEED-Y]"
    assert group_of(ranks) == group_of("tests/distributed/test_rollback.py::test_on_two_ranks[cpu_zero3-X]")
    assert group_of(ranks) != group_of(ranks.replace("zero3", "ddp"))
    assert group_of("tests/toyworld/test_world.py::test_a") == group_of("tests/toyworld/test_sampler.py::test_b[c]")
    assert group_of("tests/rl/test_grpo.py::test_a[cpu_ddp]") == "tests/rl/test_grpo.py"


def test_what_a_test_asks_for_is_in_its_group(request):
    """Of all tests of this session."""
    worlds = {"small_world": "tests/toyworld", "word_world": "tests/wordproblems"}
    for item in request.session.items:
        if "two_ranks" in item.fixturenames:
            assert group_of(item.nodeid) == f"two ranks, {item.callspec.params['config']}"
        for world in worlds.keys() & set(item.fixturenames):
            assert group_of(item.nodeid) == worlds[world]
