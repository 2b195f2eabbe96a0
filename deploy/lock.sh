#!/usr/bin/env bash
# Resolves what a Bento installs, on the CPU and on a GPU, and writes the two locks beside this file.
# Needs the network; run it after a change of the extra `serve` or of constraints.txt.
set -euo pipefail
cd "$(dirname "$0")/.."
python=${PYTHON:-.venv/bin/python}
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT

resolve() { # NAME, the inference runtime to put in place of onnxruntime, comment
  "$python" - "$work" "$2" <<'PY'
import pathlib, re, sys, tomllib

work, runtime = pathlib.Path(sys.argv[1]), sys.argv[2]
project = tomllib.loads(pathlib.Path("pyproject.toml").read_text())["project"]
wanted = project["dependencies"] + project["optional-dependencies"]["serve"]
named = [runtime + line[len("onnxruntime"):] if re.match(r"onnxruntime\b(?!-)", line) else line for line in wanted]
(work / "wanted.txt").write_text("\n".join(named) + "\n")
pins = pathlib.Path("constraints.txt").read_text()
(work / "constraints.txt").write_text(re.sub(r"^onnxruntime==", runtime + "==", pins, flags=re.M))
PY
  "$python" -m pip install -q --dry-run --ignore-installed --report "$work/report.json" \
    -c "$work/constraints.txt" -r "$work/wanted.txt"
  "$python" - "$work" "$3" >"deploy/$1" <<'PY'
import json, pathlib, re, sys

print("# Made by deploy/lock.sh: the base dependencies and the extra `serve`, with all that they need.")
print("# " + sys.argv[2])
report = json.loads((pathlib.Path(sys.argv[1]) / "report.json").read_text())
for entry in sorted(report["install"], key=lambda e: e["metadata"]["name"].lower()):
    print(re.sub(r"[-_.]+", "-", entry["metadata"]["name"]).lower() + "==" + entry["metadata"]["version"])
PY
}

resolve requirements-serve.txt onnxruntime "No torch, no mlflow: a Bento holds ONNX, NumPy, Arrow and FAISS files."
resolve requirements-serve-gpu.txt onnxruntime-gpu \
  "The CUDA build of ONNX Runtime; CUDA 13 and cuDNN 9 themselves come with the base image (deploy/gpu.yaml)."
