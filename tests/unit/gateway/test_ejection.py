from bentos.gateway.ejection import Ejection, EjectionPolicy


def test_an_address_is_ejected_after_failures_in_a_row_for_longer_each_time():
    ejection = Ejection(EjectionPolicy(consecutive=2, base_s=1.0, max_s=2.5))
    now = 0.0
    for wait in (1.0, 2.0, 2.5, 2.5):
        ejection.bad(now)
        assert not ejection.out(now)
        ejection.bad(now)
        assert ejection.out(now + wait - 0.01)
        now += wait
        assert not ejection.out(now)
    ejection.good()
    ejection.bad(now, dead=True)
    assert ejection.out(now + 0.99)
    assert not ejection.out(now + 1.0)
