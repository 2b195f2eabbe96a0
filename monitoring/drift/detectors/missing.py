"""Whether values go missing more or less often: Fisher's exact test."""

from monitoring.drift.base import Columns, Detector, Engine, Finding


class Missing(Detector):
    """effect: difference of the two rates, absolute. Where nothing is missing (or all is) on both sides: no test."""

    name = "missing"
    takes = ("missing",)
    floor = 0.01

    def compare(self, reference: Columns, current: Columns, *, engine: Engine, seed: int) -> Finding:
        before, now = reference["missing"], current["missing"]
        rates = float(before.mean()), float(now.mean())
        details = {"reference": rates[0], "current": rates[1]}
        effect = abs(rates[1] - rates[0])
        if rates[0] == rates[1] and rates[0] in (0.0, 1.0):
            return Finding(effect, None, effect, details)
        return Finding(effect, engine.fisher(before, now).p, effect, details)
