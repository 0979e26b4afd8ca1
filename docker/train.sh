#!/bin/sh
# From the official releases, or the three sets, in /data to a model in /models; goes on where it was stopped.
set -eu
preset=${PRESET:-default}
sets=/data
if [ ! -d "$sets/mini_voc_seg" ]; then
    sets=/runs/sets
    if [ ! -d "$sets/mini_voc_seg" ]; then
        unihead-data prepare --from /data --out "$sets"
    fi
fi
if [ -e "/runs/$preset/checkpoint.pt" ]; then
    unihead-train run --preset "$preset" --data "$sets" --out "/runs/$preset" --resume
else
    unihead-train run --preset "$preset" --data "$sets" --out "/runs/$preset"
fi
unihead-export onnx --checkpoint "/runs/$preset/checkpoint.pt" --out /models/unihead.onnx
unihead-export parity --checkpoint "/runs/$preset/checkpoint.pt" --model /models/unihead.onnx --data "$sets"
cat <<END

/runs/$preset/report.html says what was learned and forgotten.
/models/unihead.onnx is ready. The first time, let the service read it:
    UNIHEAD_MODEL=/models/unihead.onnx docker compose up --detach unihead
From then on, after another training:
    docker compose kill --signal HUP unihead
and GET /info says which model answers.
END
