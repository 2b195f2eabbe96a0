"""Libraries that report their use to their makers are told not to, before they are imported.

Whom a service serves, and how often, is nobody else's business; ONNX Runtime also keeps a database and a thread for it.
"""

import os

# What each of them reads: BentoML, MLflow, ONNX Runtime, Evidently and others.
OFF = {
    "BENTOML_DO_NOT_TRACK": "True",
    "MLFLOW_DISABLE_TELEMETRY": "true",
    "ORT_DISABLE_TELEMETRY": "1",
    "DO_NOT_TRACK": "1",
}


def off() -> None:
    """Of this process and those that it starts. Who has said otherwise in the environment is heard."""
    for name, value in OFF.items():
        os.environ.setdefault(name, value)
