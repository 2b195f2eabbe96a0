"""Every online detector: the free ones, and alibi-detect's beside them. One contract suite over all."""

from monitoring.drift.online.alibi import AlibiCvm, AlibiFet, AlibiMmd
from monitoring.drift.online.base import Online
from monitoring.drift.online.cusum import Cusum
from monitoring.drift.online.estimated_rate import EstimatedRate
from monitoring.drift.online.rate import Rate
from monitoring.drift.online.tumbling import TumblingKs, TumblingMmd

ONLINE: dict[str, type[Online]] = {
    "cusum": Cusum,
    "tumbling_ks": TumblingKs,
    "rate": Rate,
    "estimated_rate": EstimatedRate,
    "tumbling_mmd": TumblingMmd,
    "alibi_cvm": AlibiCvm,
    "alibi_fet": AlibiFet,
    "alibi_mmd": AlibiMmd,
}
