"""No order of growing and releasing lets a sum exceed its limit, or keeps what was given back."""

from hypothesis import given
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule

from prsmd.core.memory_budget import Holding, MemoryBudget, MemoryLimits, Share

LIMITS = MemoryLimits(total=1000, per_organization=600, per_principal=400)
SIZES = st.integers(0, 700)


class Budget(RuleBasedStateMachine):
    """Two organizations with three callers each, and what the test itself believes is held."""

    def __init__(self) -> None:
        super().__init__()
        self.budget = MemoryBudget(LIMITS)
        self.holdings: list[Holding] = []
        self.believed: dict[int, int] = {}

    @rule(organization=st.sampled_from("ab"), number=st.integers(0, 2), size=SIZES)
    def begin(self, organization: str, number: int, size: int) -> None:
        self.holdings.append(self.budget.holding(f"{organization}{number}", organization))
        self._grow(len(self.holdings) - 1, size)

    @rule(data=st.data(), size=SIZES)
    def grow(self, data: st.DataObject, size: int) -> None:
        if self.holdings:
            self._grow(data.draw(st.integers(0, len(self.holdings) - 1)), size)

    @rule(data=st.data())
    def release(self, data: st.DataObject) -> None:
        if self.holdings:
            at = data.draw(st.integers(0, len(self.holdings) - 1))
            self.holdings[at].release()
            self.believed[at] = 0

    def _grow(self, at: int, size: int) -> None:
        holding = self.holdings[at]
        fits = self._fits(holding, size)
        shortage = holding.grow(size)
        assert (shortage is None) == (fits or holding.released or not size)
        if shortage is None and not holding.released:
            self.believed[at] = self.believed.get(at, 0) + size

    def _fits(self, holding: Holding, size: int) -> bool:
        return (
            self._sum("principal", holding.principal) + size <= LIMITS.per_principal
            and self._sum("organization", holding.organization) + size <= LIMITS.per_organization
            and sum(self.believed.values()) + size <= LIMITS.total
        )

    def _sum(self, kind: str, name: str) -> int:
        return sum(
            self.believed.get(at, 0)
            for at, holding in enumerate(self.holdings)
            if getattr(holding, kind) == name
        )

    @invariant()
    def no_sum_exceeds_its_limit(self) -> None:
        assert self.budget.held == sum(self.believed.values()) <= LIMITS.total
        for name in ("a", "b"):
            assert self._sum("organization", name) <= LIMITS.per_organization
            for number in range(3):
                held = self._sum("principal", f"{name}{number}")
                assert self.budget.held_by(f"{name}{number}") == held <= LIMITS.per_principal

    def teardown(self) -> None:
        for holding in self.holdings:
            holding.release()
        assert self.budget.held == 0
        assert not self.budget._principals
        assert not self.budget._organizations


TestBudget = Budget.TestCase


def test_a_shortage_says_whose_part_is_used_up_and_whether_waiting_helps() -> None:
    budget = MemoryBudget(LIMITS)
    one, other, third = (budget.holding(f"a{number}", "a") for number in range(3))
    assert one.grow(400) is None
    own = budget.holding("a0", "a").grow(1)
    assert own is not None
    assert (own.share, own.limit, own.held, own.hopeless) == (Share.PRINCIPAL, 400, 400, False)
    assert other.grow(200) is None
    shared = third.grow(1)
    assert shared is not None
    assert (shared.share, shared.held) == (Share.ORGANIZATION, 600)
    assert budget.holding("b", "b").grow(400) is None
    everyone = budget.holding("c", "c").grow(1)
    assert everyone is not None
    assert (everyone.share, everyone.held) == (Share.APPLIANCE, 1000)
    assert "1000 bytes" in everyone.reason
    assert budget.refused == 3


@given(size=st.integers(401, 10**12))
def test_what_never_fits_is_told_so(size: int) -> None:
    shortage = MemoryBudget(LIMITS).holding("a", "a").grow(size)
    assert shortage is not None
    assert shortage.hopeless
    assert str(size) in shortage.reason


def test_what_was_released_counts_nothing_any_more() -> None:
    budget = MemoryBudget(LIMITS)
    holding = budget.holding("a", "a")
    holding.grow(100)
    holding.release()
    holding.release()
    assert holding.grow(100) is None
    assert budget.held == 0
