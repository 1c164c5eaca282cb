"""Which latents go first: what each eviction policy values, and what none may do."""

from collections.abc import Collection

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from t2i_policy.eviction import LOW_WATER, CachedItem, EvictionPolicy, choose_evictions
from t2i_policy.steps_at_stake import StepsAtStake, losses_in_turn
from t2i_simulator.rivals.eviction import FIFO, LCBFU, LRU

Latent = CachedItem[str]
LADDER = (5, 10, 15, 20, 25)
NOW_S = 1000.0
ALL = [LCBFU(), LRU(), FIFO(), StepsAtStake()]


def latent(prompt: str, step: int, *, hits: int = 1, stored_s: float = 0.0, used_s: float = 0.0) -> Latent:
    return CachedItem(f"{prompt}{step}", step, 10, hits, stored_s, max(stored_s, used_s))


def prompt(name: str, *, hits: int = 1, used_s: float = 0.0) -> list[Latent]:
    """A whole ladder; `hits` fall on its largest step."""
    return [latent(name, step, hits=hits if step == 25 else 1, used_s=used_s) for step in LADDER]


def order(policy: EvictionPolicy, *prompts: Collection[Latent], now_s: float = NOW_S) -> list[str]:
    return [item.key for item in policy.ranked(prompts, now_s)]


@pytest.mark.parametrize(
    ("policy", "first"),
    [
        pytest.param(LCBFU(), ["often5", "large25", "old20"], id="LCBFU: least hits x K"),
        pytest.param(LRU(), ["old20", "often5", "large25"], id="LRU: used longest ago"),
        pytest.param(FIFO(), ["old20", "large25", "often5"], id="FIFO: stored longest ago"),
    ],
)
def test_known_policies(policy: EvictionPolicy, first: list[str]) -> None:
    """Each goes by its own measure alone."""
    latents = (
        [latent("old", 20, hits=4, stored_s=1.0, used_s=20.0)],
        [latent("large", 25, stored_s=10.0, used_s=50.0)],
        [latent("often", 5, hits=3, stored_s=30.0)],
    )
    assert order(policy, *latents) == first


def test_lcbfu_breaks_ties_by_last_use_then_by_age() -> None:
    """Equal hits x K: used longest ago first, then stored longest ago."""
    latents = [
        latent("d", 10, stored_s=1.0, used_s=12.0),
        latent("c", 10, stored_s=3.0, used_s=9.0),
        latent("b", 10, stored_s=2.0, used_s=9.0),
        latent("a", 10),
    ]
    assert order(LCBFU(), *([one] for one in latents)) == ["a10", "b10", "c10", "d10"]


def test_silent_prompt_goes_before_a_live_one() -> None:
    """What is good of a session that ended goes before the same of an equally used one that goes on."""
    ranked = order(StepsAtStake(), prompt("ended", used_s=10.0), prompt("live", used_s=990.0))
    places = [(ranked.index(f"ended{step}"), ranked.index(f"live{step}")) for step in LADDER]
    assert all(ended < live for ended, live in places)
    assert ranked.index("ended20") < ranked.index("live10")


def test_past_fame_does_not_outlive_silence() -> None:
    """Where LCBFU keeps what was used a hundred times long ago, ours keeps what is in use now."""
    famous, current = prompt("famous", hits=100, used_s=10.0), prompt("current", hits=2, used_s=999.0)
    assert order(LCBFU(), famous, current)[-1] == "famous25"
    assert order(StepsAtStake(), famous, current)[-1].startswith("current")


def test_of_equally_silent_prompts_the_more_used_stays() -> None:
    """Frequency decides where recency does not."""
    ranked = order(StepsAtStake(), prompt("often", hits=9), prompt("rare"))
    assert ranked.index("rare25") < ranked.index("often25")
    assert ranked[-1].startswith("often")


def test_latent_is_worth_what_the_next_lower_one_does_not_give() -> None:
    """25 beside 20 puts 5 steps at stake, 25 alone puts 25: a lonely latent outlives one with a good stand-in."""
    close = [latent("close", 20), latent("close", 25)]
    alone = [latent("alone", 15), latent("other", 20), latent("other", 25)]
    ranked = order(StepsAtStake(), close, alone[:1], alone[1:])
    assert ranked.index("close25") < ranked.index("alone15")
    assert ranked.index("other25") < ranked.index("alone15")


def test_cold_prompts_thin_out_before_they_vanish() -> None:
    """Half of the bytes of equal prompts: every prompt keeps some latent. LRU drops half of the prompts whole."""
    prompts = [prompt(name) for name in "abcd"]
    kept = {policy: {key[0] for key in order(policy, *prompts)[10:]} for policy in (StepsAtStake(), LRU())}
    assert kept[StepsAtStake()] == set("abcd")
    assert len(kept[LRU()]) < 4


def test_loss_counts_holes_above_and_below() -> None:
    """By hand: (K - below) x rungs from K up to the next stored step, w counted in proportion to w; never falling."""
    assert losses_in_turn((20,), LADDER, 0.0) == ((0, 20.0 * (20 + 25)),)
    assert losses_in_turn((5, 25), LADDER, 0.0) == ((0, 5.0 * (5 + 10 + 15 + 20)), (1, 25.0 * 25))
    turns = losses_in_turn(LADDER, LADDER, 0.0)
    assert [LADDER[at] for at, _ in turns] == [5, 15, 25, 10, 20]
    assert [lost for _, lost in turns] == sorted(lost for _, lost in turns)


def test_hit_that_displaces_a_full_run_is_worth_less() -> None:
    """By hand: 20 nets 20 - 0.5 x (25 - 20); 5 would net less than nothing and counts as nothing, not against 25."""
    assert losses_in_turn((20,), LADDER, 0.5) == ((0, 17.5 * (20 + 25)),)
    assert losses_in_turn((5, 25), LADDER, 0.5) == ((0, 0.0), (1, 25.0 * 25))


def test_weak_latents_go_first_where_only_full_runs_store() -> None:
    """A latent that keeps sessions from fresh full runs goes before any other; not where every run stores."""
    ended, live = prompt("ended", used_s=10.0), prompt("live", used_s=990.0)
    assert order(StepsAtStake(fresh_worth=0.5), ended, live)[:2] == ["ended5", "live5"]
    assert order(StepsAtStake(fresh_worth=0.0), ended, live)[1] != "live5"


def test_heavier_latent_goes_first() -> None:
    """Of the same stake, the one that frees more bytes."""
    light, heavy = CachedItem("light", 10, 10, 1, 0.0, 0.0), CachedItem("heavy", 10, 40, 1, 0.0, 0.0)
    assert order(StepsAtStake(), [light], [heavy]) == ["heavy", "light"]


def test_uses_of_one_moment_count_as_equally_recent() -> None:
    """A latent used right now, or on a clock that was set back, has no infinite worth and no error."""
    ranked = order(StepsAtStake(), prompt("now", used_s=NOW_S), prompt("ahead", used_s=NOW_S + 5), now_s=NOW_S)
    assert len(ranked) == 10
    assert ranked[0].startswith("now")  # a tie: the first given


@pytest.mark.parametrize(
    ("fresh_worth", "silence_power", "name"), [(-0.1, 1.0, "fresh_worth"), (0.5, -1.0, "silence_power")]
)
def test_constants_out_of_range_are_refused(fresh_worth: float, silence_power: float, name: str) -> None:
    """With the name of the constant."""
    with pytest.raises(ValueError, match=name):
        StepsAtStake(fresh_worth, silence_power)


stored = st.lists(
    st.lists(
        st.tuples(
            st.sampled_from(LADDER), st.integers(1, 50), st.integers(1, 20), st.floats(0, 900), st.floats(0, 100)
        ),
        max_size=5,
        unique_by=lambda one: one[0],
    ),
    max_size=8,
)


@settings(max_examples=80, deadline=None)
@given(stored=stored, share=st.floats(0.0, 1.2))
@pytest.mark.parametrize("policy", ALL, ids=lambda policy: type(policy).__name__)
def test_round_frees_enough_and_no_more(
    policy: EvictionPolicy, stored: list[list[tuple[int, int, int, float, float]]], share: float
) -> None:
    """Down to the low-water mark, not one latent further, each named once; nothing while under the cap."""
    prompts = [
        [CachedItem((at, step), step, size, hits, put_s, put_s + later_s) for step, size, hits, put_s, later_s in items]
        for at, items in enumerate(stored)
    ]
    sizes = {item.key: item.size_bytes for items in prompts for item in items}
    used = sum(sizes.values())
    capacity = int(used * share)
    gone = choose_evictions(policy, prompts, NOW_S, used, capacity)
    assert len(set(gone)) == len(gone)
    left = used - sum(sizes[key] for key in gone)
    if used <= capacity:
        assert gone == ()
    else:
        assert left <= int(capacity * LOW_WATER)
        assert left + sizes[gone[-1]] > int(capacity * LOW_WATER)
