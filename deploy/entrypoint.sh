#!/usr/bin/env bash
# What an image of a StreamRec Bento starts. `streamrec build` puts it in the place of BentoML's own script, which stays
# beside it for every other command.
#   docker run IMAGE [--port N] [--workers N] [--drain-s S]    the processes of `streamrec serve`
#   docker run IMAGE serve …                                   stock `bentoml serve`
#   docker run IMAGE COMMAND …                                 that command
set -Eeuo pipefail
if [[ $# -gt 0 && $1 != -* ]]; then
  exec bash "$(dirname "${BASH_SOURCE[0]}")/bentoml-entrypoint.sh" "$@"
fi
if [[ -n ${PORT:-} ]]; then # some platforms say it so, and BentoML's script listens to it too
  export STREAMREC_PORT=$PORT
fi
export PYTHONPATH=$BENTO_PATH/src
exec python -m bentos.recommender.image "$BENTO_PATH" "$@"
