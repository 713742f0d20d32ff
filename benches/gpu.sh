#!/usr/bin/env bash
# All that needs an NVIDIA GPU, in one go: what holds, what it prints and how long it takes, into a folder.
#
#   benches/gpu.sh [FOLDER]        default gpu-results; PyTorch comparisons where `kiln bench --setup-peers` was run
#
# Nothing here changes the card's settings. A step that fails is told at the end and does not stop the rest.
set -uo pipefail
cd "$(dirname "$0")/.."
out=${1:-gpu-results}
mkdir -p "$out"
failed=()

step() { # NAME COMMAND...
    local name=$1 start=$SECONDS
    shift
    echo "== $*"
    "$@" >"$out/$name.txt" 2>&1 || failed+=("$name")
    tail -n 3 "$out/$name.txt"
    echo "== took $((SECONDS - start)) s"
}

step card nvidia-smi
step build cargo build --release
kiln=target/release/kiln
step doctor $kiln doctor

# Every kernel against f64, on the card and simulated: the same cases, so that what differs is the card's.
step kernels $kiln kernels run --all --device cuda --json
step kernels-simulated $kiln kernels run --all --device sim --json

# The same steps on the card, simulated and on the CPU: their losses lie beside each other in metrics.jsonl.
tiny=(--set model.layers=2 --set model.heads=2 --set model.d=64 --set train.context=64 --set data.vocab=512
    --set train.steps=10 --set train.sample_every=0 --set train.eval_every=10 --set optim.warmup=2)
for precision in f32 bf16; do
    for device in cpu sim cuda; do
        run=(--set run.dir="$out" --set run.name="$precision-$device" --set train.precision=$precision)
        step "train-$precision-$device" $kiln train --device $device "${tiny[@]}" "${run[@]}"
    done
done

# NVIDIA's own checks of memory, races and unwritten memory, where they are installed.
if command -v compute-sanitizer >/dev/null; then
    for tool in memcheck racecheck initcheck; do
        step "sanitizer-$tool" compute-sanitizer --tool $tool --error-exitcode 1 $kiln kernels run --all --device cuda
    done
else
    echo "== skipped: compute-sanitizer is not installed"
fi

# A model of some size, for the time a step takes.
for precision in f32 bf16; do
    step "gpt2-$precision" $kiln train --device cuda --set model.layers=12 --set model.heads=12 --set model.d=768 \
        --set train.context=256 --set train.batch=4 --set train.steps=30 --set train.sample_every=0 \
        --set train.precision=$precision --set run.dir="$out" --set run.name="gpt2-$precision"
done

if [ ${#failed[@]} -gt 0 ]; then
    echo "failed: ${failed[*]}; see $out"
    exit 1
fi
echo "all held; see $out"
