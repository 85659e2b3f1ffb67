#!/bin/sh
# T2S by its paper's protocol on a GPU, a seed in about ten minutes: what a step costs, then Tables I and II.
#
#     scripts/t2s_gpu.sh OUT SEED [options of heirmark bench, such as --only t2s]
#
# CIFAR-10 has to lie in $HEIRMARK_DATA or ./data. Stopped, by `timeout 600` say, it goes on when it is given again: finished stages, the
# models among them, are kept in $STORE (OUT/stages). In order of worth, for what a limit cuts off: the step, T2S, what stands beside it
# ($ONLY names others). $RECIPE takes another grid, $STEP further options of the timing. Parts are put together by
#
#     heirmark bench recipes/t2s.py:tables_1_2 --scale paper --rows OUT/seed-0-t2s --rows OUT/seed-1-t2s --out OUT/whole
set -eu
out=$1 seed=$2
shift 2
recipe=${RECIPE:-recipes/t2s.py:tables_1_2}
store=${STORE:-$out/stages}
mkdir -p "$out"
if [ ! -e "$out/step.json" ]; then
    python benchmarks/t2s_time.py --data synthetic --protocol paper --batch 64 --rehearsal-precision runtime \
        --parts-only --rounds 10 --loop 200 ${STEP:-} --out "$out/step.json"
fi
for only in ${ONLY:-t2s robust}; do
    heirmark bench "$recipe" --scale paper --seed "$seed" --only "$only" --store "$store" --out "$out/seed-$seed-$only" "$@" ||
        echo "no rows of $only" >&2
done
