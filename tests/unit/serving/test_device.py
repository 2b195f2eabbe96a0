import logging

from bentos.recommender.device import CPU, CUDA, described, providers


def test_the_cpu_is_used_when_it_is_asked_for():
    assert providers("cpu", available=[CUDA, CPU]) == (CPU,)


def test_a_gpu_is_used_first_when_there_is_one():
    assert providers("gpu", available=["TensorrtExecutionProvider", CUDA, CPU]) == (CUDA, CPU)


def test_without_a_gpu_the_cpu_ranks_and_a_warning_says_so(caplog):
    with caplog.at_level(logging.WARNING):
        assert providers("gpu", available=[CPU]) == (CPU,)
    assert "ranking on the CPU" in caplog.text


def test_readyz_names_what_is_really_used():
    assert described("gpu", CPU) == {"wanted": "gpu", "device": "cpu", "provider": CPU}
    assert described("gpu", CUDA) == {"wanted": "gpu", "device": "gpu", "provider": CUDA}
